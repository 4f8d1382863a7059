"""RudderStack's files for the destination, generated from the manifest.

``db-config.json`` (behaviour), ``schema.json`` (what the control plane lets you save) and ``ui-config.json`` (the form)
have the format of https://github.com/rudderlabs/rudder-integrations-config. A rudder-server without a control plane
reads ``workspaceConfig.json`` instead.
"""

import re
from typing import Any, Final

import msgspec

from impact_plugin.config.manifest import Manifest
from impact_plugin.registration.rudderstack_environment import environment_file, environment_name, variables
from impact_plugin.registration.rudderstack_keys import ROW_TEXT, has_field, key_field, key_schema, rows, text
from impact_transformers.configuration import VARIABLE_PREFIX

DISPLAY_NAME: Final = "impact.com"
"""The name of the built-in destination, which events use in their ``integrations``."""

CLOUD: Final = "cloud"
SOURCE_TYPES: Final = (
    "android",
    "androidKotlin",
    "ios",
    "iosSwift",
    "web",
    "unity",
    "amp",
    "cloud",
    "warehouse",
    "reactnative",
    "flutter",
    "cordova",
    "shopify",
)
BEHAVIOUR: Final = {"transformAtV1": "processor", "saveDestinationResponse": True}
CONSENT_KEYS: Final = ("oneTrustCookieCategories", "ketchConsentPurposes", "consentManagement")
NAME: Final = re.compile(r"[a-zA-Z0-9_]{1,64}")
"""A type of destination that rudder-server's database, the control plane and names of variables all accept."""

DRAFT: Final = "http://json-schema.org/draft-07/schema#"


def definition(manifest: Manifest, name: str, display_name: str) -> dict[str, Any]:
    """Return ``db-config.json``: what the destination does."""
    return {
        "name": name,
        "displayName": display_name,
        "config": {
            **BEHAVIOUR,
            "includeKeys": list(CONSENT_KEYS),
            "excludeKeys": [],
            "supportedSourceTypes": list(SOURCE_TYPES),
            "supportedMessageTypes": {CLOUD: list(manifest.message_types)},
            "supportedConnectionModes": {source: [CLOUD] for source in SOURCE_TYPES},
            "destConfig": {
                "defaultConfig": [key.key for key in manifest.configuration],
                **{source: ["connectionMode", *CONSENT_KEYS] for source in SOURCE_TYPES},
            },
            "secretKeys": [key.key for key in manifest.configuration if key.secret],
        },
    }


def schema(manifest: Manifest) -> dict[str, Any]:
    """Return ``schema.json``: the JSON Schema (draft-07) that the control plane checks a configuration against."""
    return {
        "configSchema": {
            "$schema": DRAFT,
            "type": "object",
            "required": [key.key for key in manifest.configuration if key.required],
            "properties": {
                **{key.key: key_schema(key) for key in manifest.configuration},
                "connectionMode": _by_source({"type": "string", "enum": [CLOUD]}),
                "oneTrustCookieCategories": _by_source(rows(oneTrustCookieCategory=text(ROW_TEXT))),
                "ketchConsentPurposes": _by_source(rows(purpose=text(ROW_TEXT))),
                "consentManagement": _by_source(_consent()),
            },
        }
    }


def form(manifest: Manifest) -> dict[str, Any]:
    """Return ``ui-config.json``: the form, in two parts, without the keys that no kind of field fits."""
    keys = [key for key in manifest.configuration if has_field(key)]
    return {
        "uiConfig": [
            {"title": "Connection Settings", "fields": [key_field(key) for key in keys if key.required]},
            {"title": "Event Settings", "fields": [key_field(key) for key in keys if not key.required]},
        ]
    }


def workspace(manifest: Manifest, name: str, display_name: str) -> dict[str, Any]:
    """Return ``workspaceConfig.json`` with one source and one destination; replace what starts with ``REPLACE_``.

    Without a control plane rudder-server does not fill in ``env.`` names; the plugin does, for names that start with
    ``IMPACT_VAR_``.
    """
    destination = {
        "id": "dst-impact-1",
        "name": display_name,
        "enabled": True,
        "isProcessorEnabled": True,
        "workspaceId": "ws-local",
        "revisionId": "1",
        "transformations": [],
        "config": {
            key.key: f"env.{VARIABLE_PREFIX}AUTH_TOKEN" if key.secret else f"REPLACE_{environment_name(key.key)}"
            for key in manifest.configuration
            if key.required
        },
        "destinationDefinition": {
            "id": "dstdef-impact",
            "name": name,
            "displayName": display_name,
            # In a file rudder-server reads a list here, not the control plane's object.
            "config": {**BEHAVIOUR, "supportedMessageTypes": list(manifest.message_types)},
        },
    }
    source = {
        "id": "src-http-1",
        "name": "HTTP source",
        "writeKey": "REPLACE_WRITE_KEY",
        "enabled": True,
        "workspaceId": "ws-local",
        "config": {},
        "sourceDefinition": {"id": "srcdef-http", "name": "HTTP", "category": "", "type": CLOUD},
        "destinations": [destination],
    }
    return {"enableMetrics": False, "workspaceId": "ws-local", "sources": [source], "libraries": [], "connections": {}}


def files(manifest: Manifest, name: str, display_name: str) -> dict[str, str]:
    """Return the text of every file by its name."""
    trees = {
        "db-config.json": definition(manifest, name, display_name),
        "schema.json": schema(manifest),
        "ui-config.json": form(manifest),
        "workspaceConfig.json": workspace(manifest, name, display_name),
    }
    texts = {file: msgspec.json.format(msgspec.json.encode(tree), indent=2).decode() for file, tree in trees.items()}
    return {
        **{file: f"{text}\n" for file, text in texts.items()},
        "rudder-server.env": environment_file(variables(name)),
    }


def _by_source(each: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict.fromkeys(SOURCE_TYPES, each)}


def _consent() -> dict[str, Any]:
    """Return what the schema of every destination says about consent.

    https://www.rudderstack.com/docs/data-governance/consent-management/
    """
    item = {
        "type": "object",
        "properties": {
            "provider": {"type": "string", "enum": ["custom", "iubenda", "ketch", "oneTrust"], "default": "oneTrust"},
            "consents": rows(consent=text(ROW_TEXT)),
        },
        "allOf": [
            {
                "if": {"properties": {"provider": {"const": "custom"}}, "required": ["provider"]},
                "then": {
                    "properties": {"resolutionStrategy": {"type": "string", "enum": ["and", "or"]}},
                    "required": ["resolutionStrategy"],
                },
            }
        ],
    }
    return {"type": "array", "items": item}
