"""A shop that uses a vendor's SDK, as a process: python sdk_sender.py SDK URL KEY [gzip].

For each line ``FIRST COUNT`` on standard input it sends a page, an identify and an order of so many visitors, flushes,
and prints ``flushed``, or what went wrong.
"""

import sys
from importlib import import_module
from typing import Any


def open_client(module: str, url: str, key: str, *, compressed: bool) -> tuple[Any, list[str]]:
    """The SDK's module, set up as its own documentation says, and what goes wrong with it."""
    analytics: Any = import_module(module)
    problems: list[str] = []
    analytics.write_key = key
    if module == "rudderstack.analytics":
        analytics.dataPlaneUrl = url
    else:
        analytics.host = url
    analytics.gzip = compressed
    analytics.on_error = lambda error, items: problems.append(f"{len(items)} lost: {error}")
    return analytics, problems


def send(analytics: Any, number: int) -> None:
    """What a visitor does."""
    anonymous, user = f"anonymous-{number}", f"user-{number}"
    analytics.page(anonymous_id=anonymous, properties={"url": f"https://shop.example.com/{anonymous}/{number}"})
    analytics.identify(user_id=user, anonymous_id=anonymous, traits={"plan": "gold"})
    properties = {"order_id": f"order-{number}", "total": 25.0, "currency": "EUR"}
    analytics.track(user_id=user, event="Order Completed", properties=properties, anonymous_id=anonymous)


def main() -> None:
    """Serve the lines until there are no more."""
    module, url, key, *more = sys.argv[1:]
    analytics, problems = open_client(module, url, key, compressed="gzip" in more)
    for line in sys.stdin:
        first, count = map(int, line.split())
        for number in range(first, first + count):
            send(analytics, number)
        analytics.flush()
        sys.stdout.write("; ".join(problems or ["flushed"]) + "\n")
        sys.stdout.flush()
    analytics.shutdown()


if __name__ == "__main__":
    main()
