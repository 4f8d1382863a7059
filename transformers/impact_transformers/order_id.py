"""The id of an order: impact.com recognises a repeated conversion by nothing else, so it is the same for ever."""

import base64
import hashlib
from typing import Any, Final

from impact_transformers.normalize import Rule, as_text, conceal_emails, holds_email
from impact_transformers.outcome import NoticeReason, UnusableValueError

PREFIX: Final = "ip-"
"""What ids that were made here begin with."""

_NO_ID: Final = frozenset({"undefined", "null", "nan", "none", "0", "[object object]", "(not set)"})
"""What programs write where there is no order id, in lower case: sent as ids, all such orders would be one."""


def order_id_of(limit: int, account: str, campaign: str) -> Rule:
    """The rule for the order's own id. One that impact.com would not take is sent as its digest."""

    def order_id(value: Any) -> str | None:
        text = None if isinstance(value, bool) else as_text(value)
        if text is None:
            return None
        if text.lower() in _NO_ID:
            raise UnusableValueError(f"{text} stands for no order id")
        if len(text) <= limit and not holds_email(text):
            return text
        # An event that was written down has its addresses concealed; the id must be the same before and after.
        digest = made_id(account, campaign, "order", conceal_emails(text))
        why = "holds an e-mail address" if holds_email(text) else f"has {len(text)} characters, over {limit}"
        raise UnusableValueError(f"{why}; its digest is sent", NoticeReason.ORDER_ID_DIGESTED, instead=digest)

    return order_id


def made_id(*facts: str) -> str:
    """The same id for the same facts: prefix and base32 of a 25-byte BLAKE2b of them, joined by U+001F."""
    digest = hashlib.blake2b("\x1f".join(facts).encode("utf-8", "surrogatepass"), digest_size=25).digest()
    return PREFIX + base64.b32encode(digest).decode().lower()
