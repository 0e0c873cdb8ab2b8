"""Sends the same request over and over, over one connection as long as it lives, and counts what is answered."""

import http.client
import json
import sys

request = json.load(sys.stdin)
body = b"x" * request["bytes"]
connection = http.client.HTTPConnection(request["host"], timeout=20)
answers = {}
for _ in range(request["times"]):
    # Without a length it goes in chunks.
    sent = (body[at : at + 8192] for at in range(0, len(body), 8192)) if request["chunked"] else body
    try:
        connection.request(request["method"], request["path"], body=sent, headers=request["headers"])
        answer = connection.getresponse()
        text = json.loads(answer.read())
        came = f"{answer.status} {text.get('code')}"
    except Exception as error:
        connection.close()
        came = repr(error)
    answers[came] = answers.get(came, 0) + 1
print(json.dumps(answers))
