"""Sends an event as the Python SDK makes it: by both of its interfaces, in both modes."""

import json
import sys
import urllib.error
import urllib.request

from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.conversion import to_json
from cloudevents.v1.http import CloudEvent as FormerCloudEvent
from cloudevents.v1.http import to_binary, to_structured

ATTRIBUTES = {"id": "7", "source": "/sdk/python", "type": "tokens.used", "subject": "acme"}
DATA = {"feature": "gpt-4", "tokens": 1500}


def send(mode, headers, body):
    """Sends what the SDK made, with its headers and no others: urllib would name a type of its own."""
    body = body.encode() if isinstance(body, str) else body
    request = urllib.request.Request(sys.argv[1], data=body, method="POST")
    opener = urllib.request.build_opener(NoTypeOfItsOwn)
    for name, value in headers.items():
        request.add_header(name, value)
    try:
        answer = opener.open(request, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    print(json.dumps({"mode": mode, "status": answer.status, "body": json.loads(answer.read())}))


class NoTypeOfItsOwn(urllib.request.HTTPHandler):
    """Sends no `Content-Type` that the request does not have."""

    def http_request(self, request):
        named = request.has_header("Content-type")
        request = self.do_request_(request)
        if not named:
            request.remove_header("Content-type")
        return request


event = CloudEvent({**ATTRIBUTES, "specversion": "1.0"}, DATA)
for mode, message in [("binary", to_binary_event(event)), ("structured", to_structured_event(event))]:
    send(mode, message.headers, message.body)
typed = CloudEvent({**ATTRIBUTES, "specversion": "1.0", "datacontenttype": "application/json"}, DATA)
for mode, message in [("binary, typed", to_binary_event(typed)), ("structured, typed", to_structured_event(typed))]:
    send(mode, message.headers, message.body)

former = FormerCloudEvent(ATTRIBUTES, DATA)
send("binary, former interface", *to_binary(former))
send("structured, former interface", *to_structured(former))
batch = b"[" + to_json(former) + b"]"
send("batch", {"Content-Type": "application/cloudevents-batch+json"}, batch)
