"""What errors of others say, within sentences of ours."""


def in_short(error: Exception) -> str:
    """In one line that a sentence has room for."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
