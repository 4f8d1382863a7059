"""A string that cannot be printed, logged, pickled or encoded by accident."""

from typing import Final, NoReturn, final

MASK: Final = "***"


@final
class Secret:
    """Holds one secret; only :meth:`reveal` gives it away.

    ``repr``, ``str`` and f-strings show a mask; msgspec and pickle refuse it, so a secret inside a Struct makes
    encoding fail loudly instead of leaking.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself; call it only where the secret leaves for its owner."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied into a message; call reveal() at the point of use")
