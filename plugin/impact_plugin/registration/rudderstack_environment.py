"""The environment of a rudder-server that uses the plugin."""

import re
from collections.abc import Iterable

import msgspec

from impact_plugin.config.settings import ServerSettings


class Variable(msgspec.Struct, frozen=True):
    """A variable of rudder-server's environment and what it is for; the file has ``optional`` ones commented out."""

    name: str
    value: str
    why: str
    optional: bool = False


def variables(name: str) -> tuple[Variable, ...]:
    """Return the variables that rudder-server needs for a destination of this type.

    How settings become names of variables: https://github.com/rudderlabs/rudder-go-kit/blob/main/config/config_env.go
    """
    typed = environment_name(name)
    throttle = f"RSERVER_ROUTER_THROTTLER_DELIVERY_{typed}_CONVERSIONS"
    return (
        Variable(
            "DEST_TRANSFORM_URL",
            f"http://127.0.0.1:{ServerSettings().port}",
            "impact-plugin transforms for all destinations; it passes others on to IMPACT_PLUGIN__RUDDER__UPSTREAM.",
        ),
        Variable(
            "RSERVER_TRANSFORMER_CLIENT_DISABLE_KEEP_ALIVES",
            "false",
            "Otherwise rudder-server opens a connection for every request.",
        ),
        Variable(
            f"RSERVER_ROUTER_{typed}_TRANSFORMER_PROXY",
            "true",
            "impact-plugin delivers: within impact.com's limits, each order once, and every error by its cause.",
        ),
        Variable(
            f"RSERVER_PROCESSOR_{typed}_TRANSFORM_AT",
            "router",
            "Transform at delivery, in batches of 20 and up to five seconds later: an order right after its landing"
            " page gets its click id.",
            optional=True,
        ),
        Variable(
            f"RSERVER_ROUTER_{typed}_RETRY_TIME_WINDOW",
            "720h",
            "If rudder-server delivers itself: how long it retries after a 5xx; its default is three hours.",
            optional=True,
        ),
        Variable(
            f"{throttle}_LIMIT",
            "10",
            "If rudder-server delivers itself: maximum number of conversions ... (likewise for clicks and pageload)",
            optional=True,
        ),
        Variable(f"{throttle}_TIME_WINDOW", "1s", "... in this time.", optional=True),
        Variable(
            "RSERVER_BACKEND_CONFIG_CONFIG_FROM_FILE",
            "true",
            "Without a control plane: read the workspace from a file ...",
            optional=True,
        ),
        Variable(
            "RSERVER_BACKEND_CONFIG_CONFIG_JSONPATH",
            "/etc/rudderstack/workspaceConfig.json",
            "... namely this one.",
            optional=True,
        ),
    )


def environment_name(name: str) -> str:
    """Return a name as names of variables have it: ``accountSID`` becomes ``ACCOUNT_SID``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


def environment_file(wanted: Iterable[Variable]) -> str:
    """Return an environment file with the variables, each with a comment that says what it is for."""
    blocks = [
        f"# {variable.why}\n{'# ' if variable.optional else ''}{variable.name}={variable.value}\n"
        for variable in wanted
    ]
    return "\n".join(blocks)
