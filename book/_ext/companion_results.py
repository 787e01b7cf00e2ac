"""The role `result`: a number of a run in a sentence, read from results.json, never typed.

    {result}`reference/01_pretrain/jepa-seed0:linear.top1|.1%`

shows the value at the dotted key, with its interval in brackets where it has one. A run, key or
format that does not exist is a warning (`companion.result`), hence fails `-W`.
"""

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from companion_files import run_from_id
from companion_markdown import look_up, number

logger = logging.getLogger(__name__)


class ResultRole(SphinxRole):
    """Inserts a result as text; the file and key behind it show on hovering."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        address, _, form = self.text.partition("|")
        run_id, _, key = address.partition(":")
        try:
            run = run_from_id(self.env.srcdir, run_id)
            path = run.folder / "results.json"
            self.env.note_dependency(str(path))
            if not path.is_file():
                raise ValueError(f"there is no {path.relative_to(run.root)}")
            shown = number(look_up(run.read("results.json"), key), form.strip())
        except (KeyError, ValueError) as error:
            logger.warning(
                "The result %r can't be shown: %s.",
                *(self.text, error.args[0]),
                location=self.get_location(),
                type="companion",
                subtype="result",
            )
            return [nodes.literal(self.text, f"?{self.text}?")], []
        source = f"{key} in book/runs/{run.id}/results.json"
        return [nodes.abbreviation(shown, shown, explanation=source, classes=["result"])], []
