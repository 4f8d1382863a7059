"""What to fill in at Jitsu and Segment, which have no destination of ours to register but call any address."""

from typing import Final

import msgspec

from impact_plugin.config.settings import ServerSettings

PORT: Final = ServerSettings().ingest_port


class Guide(msgspec.Struct, frozen=True):
    """One way to connect a router: the form to fill in, and the source to add to your configuration file."""

    title: str
    fields: tuple[tuple[str, str], ...]
    source: str
    notes: tuple[str, ...]


JITSU: Final = (
    Guide(
        "Segment destination: an address and a key",
        (
            ("Destination", "Segment"),
            ("API Base", f"http://impact-plugin:{PORT}/v1"),
            ("Write Key", "the source's key"),
        ),
        '[sources.jitsu]\nkeys = ["${JITSU_KEY}"]\n',
        ("If Jitsu may not call private addresses, add the service's host to FETCH_LOCAL_WHITELIST.",),
    ),
    Guide(
        "Webhook: signed, one event per request",
        (
            ("Destination", "Webhook"),
            ("URL", f"http://impact-plugin:{PORT}/webhook/jitsu-signed"),
            ("Method", "POST"),
            ("Headers", "Authorization: Bearer KEY"),
            ("Custom Payload", "off"),
            ("Signature Method", "hmac"),
            ("Signing Secret", "the source's secret"),
            ("Signature Header", "Jitsu-Signature"),
        ),
        '[sources.jitsu-signed]\nkeys = ["${JITSU_WEBHOOK_KEY}"]\n'
        'signature = { scheme = "jitsu_hmac", secrets = ["${JITSU_SECRET}"] }\n',
        ("Keys must not contain a colon: Jitsu cuts header values there.",),
    ),
)

SEGMENT: Final = (
    Guide(
        "Webhooks (classic)",
        (
            ("Webhook URL", "https://events.shop.example/webhook/segment"),
            ("Headers", "Authorization: Bearer KEY"),
            ("Shared Secret", "the source's secret"),
        ),
        '[sources.segment]\nkeys = ["${SEGMENT_KEY}"]\nstrict = true\n'
        'signature = { scheme = "segment_sha1", secrets = ["${SEGMENT_SECRET}"] }\n',
        ("Segment calls public addresses only: put the port behind a TLS proxy that does not change bodies.",),
    ),
    Guide(
        "Webhooks (Actions)",
        (
            ("Settings: Shared Secret", "the source's secret"),
            ("Action", "Send"),
            ("URL", "https://events.shop.example/webhook/segment-actions"),
            ("Method", "POST"),
            ("Headers", "Authorization: Bearer KEY"),
        ),
        '[sources.segment-actions]\nkeys = ["${SEGMENT_ACTIONS_KEY}"]\n\n[sources.segment-actions.signature]\n'
        'scheme = "segment_sha1"\nsecrets = ["${SEGMENT_ACTIONS_SECRET}"]\nfirst_item = true\n',
        ("Segment signs only the first event of a batch, which first_item accepts: the key vouches for the others.",),
    ),
)

GUIDES: Final = {"jitsu": JITSU, "segment": SEGMENT}
DESTINATION: Final = (
    '[destinations.impact]\naccountSID = "IR..."\napiKey = "file:/run/secrets/impact_token"\ncampaignId = "23224"\n'
)


def text(router: str) -> str:
    """Return a router's guides as plain text."""
    return (
        "\n".join(_lines(guide) for guide in GUIDES[router])
        + f"\nAdd its destination to the same file:\n\n{DESTINATION}"
    )


def _lines(guide: Guide) -> str:
    width = max(len(name) for name, _ in guide.fields)
    rows = "".join(f"  {name:<{width}}  {value}\n" for name, value in guide.fields)
    notes = "".join(f"Note: {note}\n" for note in guide.notes)
    return f"{guide.title}\n\n{rows}\nAdd this source to your configuration file:\n\n{guide.source}\n{notes}"
