"""Each private call of flwr that hub, fleet, links and node rely on, pinned.

flwr is held to one minor version; when that moves, what fails here says what moved.
"""

import ast
import inspect
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILES = (
    "server/guilder_server/hub.py",
    "server/guilder_server/fleet.py",
    "server/guilder_server/links.py",
    "server/guilder_server/objects.py",
    "client/guilder_client/calls.py",
    "client/guilder_client/node.py",
    "shared/guilder_shared/pieces.py",
)
LINKS = "flwr.server.superlink.linkstate.in_memory_linkstate:InMemoryLinkState."
STORE = "flwr.supercore.object_store.in_memory_object_store:InMemoryObjectStore."
HANDLERS = "flwr.superlink.servicer.fleet.fleet_handlers:"
CLIENT = "flwr.supernode.fleet_http_client:FleetHttpClient."
INFLATABLE = "flwr.supercore.inflatable.inflatable_object:"
CONTENTS = "flwr.supercore.inflatable.inflatable_utils:"
HEADER = "flwr.supernode.node_auth_http_interceptor:"
KEYS = "flwr.supercore.primitives.asymmetric:"
CALLS = {
    LINKS + "__init__": "self federation_manager object_store",
    LINKS + "activate_node": "self node_id heartbeat_interval",
    LINKS + "deactivate_node": "self node_id",
    LINKS + "acknowledge_node_heartbeat": "self node_id heartbeat_interval",
    LINKS + "_cleanup_expired_task_tokens_locked": "self",
    LINKS + "create_node": "self owner_aid owner_name public_key heartbeat_interval "
    "location name",
    LINKS + "get_node_info": "self node_ids owner_aids statuses",
    LINKS + "get_nodes": "self run_id",
    LINKS + "claim_task": "self task_id",
    LINKS + "activate_task": "self task_id",
    LINKS + "stop_run": "self run_id",
    LINKS + "start_session": "self run_id",
    LINKS + "store_message_and_object_tree": "self message object_tree session_id",
    LINKS + "store_object": "self run_id session_id object_id object_content",
    LINKS + "get_object": "self run_id object_id",
    LINKS + "delete_messages": "self message_ins_ids",
    LINKS + "get_message_ids_from_run_id": "self run_id",
    LINKS + "_cleanup_push_session": "self session_id cleanup_messages",
    STORE + "__init__": "self verify",
    STORE + "get": "self object_id",
    STORE + "put": "self object_id object_content",
    STORE + "delete": "self object_id",
    HANDLERS + "activate_node": "request state",
    HANDLERS + "deactivate_node": "request state",
    HANDLERS + "send_node_heartbeat": "request state",
    HANDLERS + "pull_messages": "request state store",
    HANDLERS + "push_messages": "request state",
    HANDLERS + "push_object": "request state",
    HANDLERS + "confirm_message_received": "request state store",
    CLIENT + "__init__": "self base_url interceptors verify timeout retry_invoker",
    CLIENT + "ActivateNode": "self request",
    CLIENT + "DeactivateNode": "self request",
    CLIENT + "SendNodeHeartbeat": "self request",
    CLIENT + "PullMessages": "self request",
    CLIENT + "PushMessages": "self request",
    CLIENT + "_send": "self context stream",
    CLIENT + "ConfirmMessageReceived": "self request",
    INFLATABLE + "get_all_nested_objects": "obj",
    INFLATABLE + "get_object_tree": "obj",
    INFLATABLE + "is_valid_sha256_hash": "object_id",
    INFLATABLE + "get_object_body": "object_content cls",
    INFLATABLE + "get_object_head_values_from_object_content": "object_content",
    INFLATABLE + "iterate_object_tree": "tree",
    INFLATABLE + "no_object_id_recompute": "",
    CONTENTS + "inflate_object_from_contents": "object_id object_contents "
    "keep_object_contents objects",
    KEYS + "public_key_to_bytes": "public_key",
    KEYS + "bytes_to_public_key": "public_key_bytes",
    KEYS + "verify_signature": "public_key message signature",
    HEADER + "NodeAuthHttpInterceptor.__init__": "self private_key public_key",
    "flwr.app.message:make_message": "metadata content error",
    "flwr.app.message:remove_content_from_message": "message",
    "flwr.common.serde:message_from_proto": "message_proto",
    "flwr.common.serde:message_to_proto": "message",
    "flwr.common.serde_utils:metadata_from_proto": "metadata_proto",
}
VALUES = {
    "flwr.common.constant:TIMESTAMP_HEADER": "flwr-timestamp",
    "flwr.common.constant:TIMESTAMP_TOLERANCE": 300,
    "flwr.common.constant:SYSTEM_TIME_TOLERANCE": 5,
    "flwr.common.constant:HEARTBEAT_PATIENCE": 2,
    "flwr.common.constant:HEARTBEAT_MIN_INTERVAL": 10,
    "flwr.common.constant:SUPERLINK_NODE_ID": 1,
    "flwr.common.constant:FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": 5 * 1024 * 1024,
    "flwr.common.constant:ErrorCode.CLIENT_APP_RAISED_EXCEPTION": 2,
    "flwr.common.constant:ErrorCode.MESSAGE_UNAVAILABLE": 3,
    "flwr.common.constant:ErrorCode.NODE_UNAVAILABLE": 5,
    "flwr.common.constant:ErrorCode.CLIENT_APP_CRASHED": 8,
    "flwr.supercore.protobuf.constants:PROTOBUF_MEDIA_TYPE": "application/protobuf",
    "flwr.supercore.constant:FLEET_HTTP_PUBLIC_KEY_HEADER": "flwr-public-key",
    "flwr.supercore.constant:FLEET_HTTP_SIGNATURE_HEADER": "flwr-signature",
}


def find(name: str) -> Any:
    module, _, path = name.partition(":")
    found = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def test_flwr_is_the_minor_version_these_calls_were_read_in() -> None:
    assert version("flwr").startswith("1.41.")


@pytest.mark.parametrize("name", CALLS)
def test_a_private_call_takes_the_same_arguments(name: str) -> None:
    assert " ".join(inspect.signature(find(name)).parameters) == CALLS[name]


@pytest.mark.parametrize("name", VALUES)
def test_a_private_value_is_the_same(name: str) -> None:
    assert find(name) == VALUES[name]


def test_the_link_state_keeps_what_we_read_where_we_read_it() -> None:
    from guilder_server.links import Links
    from guilder_server.uploads import UploadGate

    links = Links(UploadGate(1, 1))

    for name in (
        "nodes",
        "message_ins_store",
        "message_res_store",
        "message_ins_id_to_message_res_id",
        "_object_push_sessions",
        "_object_push_session_by_root",
    ):
        assert getattr(links, name) == {}, name
    assert links.object_store is not None


def test_the_client_keeps_its_connection_where_we_replace_it() -> None:
    import httpx

    client = find("flwr.supernode.fleet_http_client:FleetHttpClient")("https://x")

    assert isinstance(client._client, httpx.Client)


def test_every_private_function_we_import_is_pinned_here() -> None:
    pinned = {name.split(":")[1].split(".")[0] for name in [*CALLS, *VALUES]}
    data = {  # types and tables, used by name alone
        *(
            *("Array", "ArrayChunk", "ArrayRecord", "InMemoryObjectStore"),
            *("PullObjectResponse", "PushObjectRequest"),
            "Error",
            "Message",
            "Metadata",
            "RecordDict",
            "Context",
            "Grid",
            "ClientApp",
        ),
        *("NOOP_ACCOUNT_NAME", "NOOP_FLWR_AID", "NOOP_FEDERATION_ID", "API_ERROR_MAP"),
        *("fleet_pb2", "heartbeat_pb2", "message_pb2", "Node", "NodeInfo"),
        *("ObjectTree", "NodeStatus", "TaskType", "Run", "FlowerError", "now"),
        *("NoOpFederationManager", "ProtobufCall", "ProtobufRequestContext"),
        "fleet_handlers",
    }
    used = set()
    for file in FILES:
        for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "flwr"
            ):
                used |= {alias.name for alias in node.names}

    assert used - pinned - data == set()
