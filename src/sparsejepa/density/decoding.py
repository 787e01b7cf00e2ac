"""The one decoder, under the name that scripts know."""

from sparsejepa.data.decoding import Unreadable, decode_image

__all__ = ["Unreadable", "decode_image"]
