"""What holds for every test: one thread, no network, repeatable examples."""

import os

# Before anything imports torch or numpy. The tensors of tests are so small that threads would only
# wait for each other, and much longer so on a busy machine.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
# A test that reaches for the Hub fails at once, on every machine.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

from hypothesis import settings  # noqa: E402

# No deadlines: shared machines stall. CI draws the same examples each time, a developer new ones.
settings.register_profile("sparsejepa", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("sparsejepa")
