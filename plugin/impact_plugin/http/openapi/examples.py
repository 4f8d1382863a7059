"""Example requests of the OpenAPI document, valid as they are."""

from typing import Final

ORDER: Final = {
    "type": "track",
    "event": "Order Completed",
    "messageId": "m-1",
    "anonymousId": "a-1",
    "timestamp": "2026-09-10T10:00:00.000Z",
    "properties": {"order_id": "o-1", "total": 25.0, "currency": "EUR"},
}
CONFIG: Final = {"accountSID": "IRtest", "apiKey": "token", "campaignId": "23224"}
JOB: Final = {
    "message": ORDER,
    "metadata": {"jobId": 1, "destinationId": "d-1", "workspaceId": "w-1"},
    "destination": {"ID": "d-1", "Config": CONFIG},
}
PROXY: Final = {
    "endpoint": "https://api.impact.com/Advertisers/IRtest/Conversions",
    "method": "POST",
    "headers": {"Authorization": "Basic SVJ0ZXN0OnRva2Vu"},
    "body": {
        "FORM": {
            "CampaignId": "23224",
            "ActionTrackerId": "56446",
            "EventDate": "2026-09-10T10:00:00Z",
            "OrderId": "o-1",
            "CustomProfileId": "a-1",
        }
    },
}
