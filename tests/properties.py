"""How often a property is tried: as often as it asks for in make test, less in make quick, more in make campaign."""

from typing import Any, Final

from hypothesis import HealthCheck, settings

_USUAL: Final = 100
_PATIENT: Final = settings(
    # A property says nothing of the machine's speed: the first text that is drawn alone may take two seconds.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    # The same examples in every run; the campaign looks for others.
    derandomize=True,
    database=None,
)


def register_profiles() -> None:
    """``patient`` for make test, ``quick`` with a tenth of its examples, ``campaign`` with fifty times as many."""
    settings.register_profile("patient", _PATIENT, max_examples=_USUAL)
    settings.register_profile("quick", _PATIENT, max_examples=_USUAL // 10)
    settings.register_profile("campaign", _PATIENT, max_examples=_USUAL * 50, derandomize=False, print_blob=True)
    settings.load_profile("patient")


def tried(examples: int, **more: Any) -> settings:
    """Settings for a property that is tried so many times in make test, and by the profile's share elsewhere."""
    profile = settings.get_profile(settings.get_current_profile_name())
    return settings(profile, max_examples=max(1, examples * profile.max_examples // _USUAL), **more)
