"""Reads some messages of a stream, compressed or not, and prints them with the answer's headers."""

import http.client
import json
import sys
import zlib

request = json.load(sys.stdin)
connection = http.client.HTTPConnection(request["host"], timeout=20)
connection.request("GET", request["path"], headers=request["headers"])
answer = connection.getresponse()
compressed = answer.getheader("content-encoding") == "gzip"
unpack = zlib.decompressobj(wbits=31)
text = b""
while text.count(b"\n\n") < request["messages"]:
    piece = answer.read1(4096)
    if not piece:
        break
    text += unpack.decompress(piece) if compressed else piece
headers = {name.lower(): value for name, value in answer.getheaders()}
print(json.dumps({"status": answer.status, "headers": headers, "text": text.decode()}))
