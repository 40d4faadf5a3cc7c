"""A peer that speaks only Redis, written from the description of the wire and from nothing of Oona's.

Signs and verifies with hmac, reads and writes protobuf by the tables below, and retries as the
existing client does: XACK, then XADD with a higher `attempt`. Takes one command a line on standard
input, as JSON, and answers each with a line: peer.py REDIS_URL SECRET
"""

import base64
import hashlib
import hmac
import json
import sys

import redis
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory, timestamp_pb2
from google.protobuf.json_format import MessageToDict, ParseDict

ENUMS = """
BusMessageType BUS_MESSAGE_TYPE_ UNSPECIFIED=0 SYSTEM_STATE=1 ADAPTATION_COMMAND=2 FIELD_REPORT=3 TELEMETRY=4
    POLICY_UPDATE=5 KERNEL_PREFETCH_REQUEST=6 KERNEL_PREFETCH_READY=7 KERNEL_PREFETCH_ERROR=8
    KERNEL_CATALOG_UPDATE=9 EMERGENCY_SIGNAL=10 BSDS_ISSUED=20 BSDS_FAILED=21 BENCHMARK_REPORT=22
MessagePriority MESSAGE_PRIORITY_ UNSPECIFIED=0 LOW=1 NORMAL=2 HIGH=3 CRITICAL=4
DeliveryGuarantee DELIVERY_GUARANTEE_ UNKNOWN=0 AT_LEAST_ONCE=1 AT_MOST_ONCE=2 EXACTLY_ONCE=3
TelemetryLevel TELEMETRY_LEVEL_ UNSPECIFIED=0 INFO=1 WARNING=2 ERROR=3 CRITICAL=4
HealthStatus HEALTH_STATUS_ UNKNOWN=0 HEALTHY=1 DEGRADED=2 UNHEALTHY=3 CRITICAL=4
EmergencyLevel EMERGENCY_LEVEL_ UNSPECIFIED=0 NOTICE=1 ELEVATED=2 CONSERVATIVE=3 HALT=4
"""

# Name, number, type; `*` is repeated, `map` is map<string, string>, string where none is given.
MESSAGES = """
BusEnvelope message_type=1:BusMessageType payload=2:bytes attributes=3:map
EventEnvelope event_id=1 event_type=2 source_subsystem=3 created_at=4:Timestamp processing_deadline=5:Duration
    ttl=6:Duration payload=10:bytes payload_type=11 content_encoding=12 priority=20:MessagePriority
    routing_keys=21:*string correlation_id=22 delivery_guarantee=30:DeliveryGuarantee max_attempts=31:uint32
    current_attempt=32:uint32
TelemetryPacket packet_id=1 timestamp=2:Timestamp source_subsystem=3 level=4:TelemetryLevel
    metrics=10:*MetricPoint events=20:*TelemetryEvent spans=30:*TraceSpan system_health=40:SystemHealth
MetricPoint name=1 value=2:double unit=3 attributes=4:map
TelemetryEvent event_id=1 description=2 level=3:TelemetryLevel attributes=4:map
TraceSpan span_id=1 parent_span_id=2 name=3 start_time=4:Timestamp end_time=5:Timestamp attributes=6:map
SystemHealth status=1:HealthStatus summary=2 indicators=3:map
KernelPrefetchRequest request_id=1 blueprint_id=2 training_run_id=3 issued_at=4:Timestamp
KernelArtifactReady request_id=1 blueprint_id=2 artifact_ref=3 checksum=4 guard_digest=5
    prewarm_p50_ms=6:float prewarm_p95_ms=7:float
KernelArtifactError request_id=1 blueprint_id=2 reason=3
KernelCatalogUpdate blueprint_id=1 artifact_ref=2 checksum=3 guard_digest=4 compile_ms=5:float prewarm_ms=6:float
EmergencySignal version=1:uint32 level=2:EmergencyLevel reason=3 origin=4 triggered_at=5:Timestamp
    monotonic_time_ms=6:uint64 run_id=7 attributes=8:map payload_checksum=9:bytes
PolicyUpdate version=1:uint32 policy_id=2 training_run_id=3 issued_at=4:Timestamp tamiyo_policy_version=5
    payload=6:bytes
"""

# What a payload is, by its type; what is not listed is opaque.
PAYLOADS = {4: "TelemetryPacket", 5: "PolicyUpdate", 6: "KernelPrefetchRequest", 7: "KernelArtifactReady",
            8: "KernelArtifactError", 9: "KernelCatalogUpdate", 10: "EmergencySignal"}

REQUESTS, READY, ERRORS = "oona.kernels.requests", "oona.kernels.ready", "oona.kernels.errors"
WAIT_MS = 20_000


def rows(table):
    """The rows of a table, continuation lines joined, as lists of words."""
    return [row.split() for row in table.strip().replace("\n    ", " ").splitlines()]


def classes():
    """The protobuf messages of the tables, by name."""
    package = "esper.leyline.v1"
    file = descriptor_pb2.FileDescriptorProto(name="peer.proto", package=package, syntax="proto3")
    file.dependency.extend([timestamp_pb2.DESCRIPTOR.name, duration_pb2.DESCRIPTOR.name])
    kinds = descriptor_pb2.FieldDescriptorProto
    enums = {name: (prefix, values) for name, prefix, *values in rows(ENUMS)}
    for name, (prefix, values) in enums.items():
        enum = file.enum_type.add(name=name)
        for value in values:
            word, number = value.split("=")
            enum.value.add(name=prefix + word, number=int(number))

    def add(message, name, number, kind):
        field = message.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL)
        if kind.startswith("*"):
            field.label, kind = kinds.LABEL_REPEATED, kind[1:]
        if kind == "map":
            entry = message.nested_type.add(name=name.title().replace("_", "") + "Entry")
            entry.options.map_entry = True
            add(entry, "key", 1, "string"), add(entry, "value", 2, "string")
            field.label, field.type = kinds.LABEL_REPEATED, kinds.TYPE_MESSAGE
            field.type_name = f".{package}.{message.name}.{entry.name}"
        elif kind in ("Timestamp", "Duration"):
            field.type, field.type_name = kinds.TYPE_MESSAGE, f".google.protobuf.{kind}"
        elif kind[0].isupper():
            field.type = kinds.TYPE_ENUM if kind in enums else kinds.TYPE_MESSAGE
            field.type_name = f".{package}.{kind}"
        else:
            field.type = getattr(kinds, f"TYPE_{kind.upper()}")

    names = []
    for name, *fields in rows(MESSAGES):
        message = file.message_type.add(name=name)
        names.append(name)
        for field in fields:
            key, _, rest = field.partition("=")
            number, _, kind = rest.partition(":")
            add(message, key, int(number), kind or "string")
    pool = descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, duration_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    found = (pool.FindMessageTypeByName(f"{package}.{name}") for name in names)
    return {found.name: message_factory.GetMessageClass(found) for found in found}


LEYLINE = classes()


def signature(secret, payload):
    return base64.b64encode(hmac.new(secret.encode(), payload, hashlib.sha256).digest())


def dictionary(message):
    return MessageToDict(message, preserving_proto_field_name=True)


class Peer:
    def __init__(self, url, secret):
        self.redis = redis.Redis.from_url(url, socket_timeout=WAIT_MS / 1000 + 10)
        self.secret = secret

    def verified(self, fields):
        good = signature(self.secret, fields[b"payload"])
        return hmac.compare_digest(good, fields.get(b"signature", b""))

    def join(self, stream, group):
        try:
            self.redis.xgroup_create(stream, group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def read(self, stream, group, payload_as=None):
        """The next entry, with all that can be told of it."""
        found = self.redis.xreadgroup(group, "peer", {stream: ">"}, count=1, block=WAIT_MS)
        if not found:
            raise TimeoutError(f"nothing on {stream}")
        entries = found[0][1] if isinstance(found, list) else found[stream.encode()][0]
        entry, fields = entries[0]
        envelope = LEYLINE["BusEnvelope"].FromString(fields[b"payload"])
        kind = payload_as or PAYLOADS.get(envelope.message_type)
        told = {
            "id": entry.decode(),
            "fields": sorted(name.decode() for name in fields),
            "verified": self.verified(fields),
            "type": envelope.message_type,
            "attributes": dict(envelope.attributes),
            "payload": envelope.payload.hex(),
        }
        if kind:
            told["message"] = dictionary(LEYLINE[kind].FromString(envelope.payload))
        return told

    def publish(self, stream, type, kind=None, message=None, payload="", attributes=None, sign="ours", **beside):
        """Writes an entry: a message as JSON or a payload in hexadecimal, signed well, badly or not."""
        content = bytes.fromhex(payload)
        if kind:
            content = ParseDict(message, LEYLINE[kind]()).SerializeToString()
        envelope = LEYLINE["BusEnvelope"](message_type=type, payload=content, attributes=attributes or {})
        return {"id": self.add(stream, envelope, sign, **beside), "payload": content.hex()}

    def add(self, stream, envelope, sign="ours", fields=None, tail=""):
        """With further fields of the entry, and with bytes of a later version behind the envelope."""
        payload = envelope.SerializeToString() + bytes.fromhex(tail)
        entry = {**(fields or {}), "payload": payload}
        if sign != "none":
            entry["signature"] = signature(self.secret if sign == "ours" else "another", payload)
        return self.redis.xadd(stream, entry).decode()

    def retry(self, stream, group, id):
        """A failed message, as the existing client tries it again."""
        [(_, fields)] = self.redis.xrange(stream, id, id)
        envelope = LEYLINE["BusEnvelope"].FromString(fields[b"payload"])
        attempt = int(envelope.attributes.get("attempt", "0")) + 1
        envelope.attributes["attempt"] = str(attempt)
        self.redis.xack(stream, group, id)
        return {"id": self.add(stream, envelope), "attempt": attempt}

    def ack(self, stream, group, id):
        return {"acked": self.redis.xack(stream, group, id)}

    def prefetch(self, group):
        """Answers one request for a kernel: with an error if its blueprint is broken."""
        asked = self.read(REQUESTS, group)
        request = asked["message"]
        who = {key: request[key] for key in ("request_id", "blueprint_id")}
        if request["blueprint_id"].startswith("broken"):
            self.publish(ERRORS, 8, "KernelArtifactError", {**who, "reason": "does not compile"})
        else:
            made = {"artifact_ref": "kernels/1", "checksum": "c0ffee", "guard_digest": "9a4d"}
            ready = {**who, **made, "prewarm_p50_ms": 1.5, "prewarm_p95_ms": 2.5}
            update = {"blueprint_id": who["blueprint_id"], **made, "compile_ms": 40.0, "prewarm_ms": 2.0}
            self.publish(READY, 7, "KernelArtifactReady", ready)
            self.publish(READY, 9, "KernelCatalogUpdate", update)
        self.ack(REQUESTS, group, asked["id"])
        return asked

    def follow_alert(self, stream, group, name, over, under, count, until):
        """Follows a metric as an alert reader does, until it is over a threshold for `count` packets, or clears, and the
        host has told of its own alert `queue_depth`; with what was told of that meanwhile."""
        high, value, events = 0, None, []
        told = {"fired": "alert_fired", "cleared": "alert_cleared"}[until]
        while True:
            entry = self.read(stream, group)
            self.ack(stream, group, entry["id"])
            for metric in entry["message"].get("metrics", []):
                if metric["name"] == name:
                    value = metric.get("value", 0)
                    high = high + 1 if value > over else 0
            events += [
                event["attributes"]["name"]
                for event in entry["message"].get("events", [])
                if event["description"].startswith("the alert queue_depth of ")
            ]
            reached = high >= count if until == "fired" else value is not None and value < under
            if reached and told in events:
                return {"value": value, "events": events}

    def entry(self, stream, id):
        """An entry, as it stands."""
        found = self.redis.xrange(stream, id, id)
        return {name.decode(): value.hex() for _, fields in found for name, value in fields.items()}


def main():
    peer = Peer(*sys.argv[1:])
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(peer, command.pop("do"))(**command) or {}
        except Exception as error:  # told to whoever asked, who decides what it means
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
