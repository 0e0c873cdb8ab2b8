// Sends an event as the JavaScript SDK makes it, in both modes.

import { createRequire } from "node:module";

// NODE_PATH says where the SDK is, which `import` does not look at.
const { CloudEvent, HTTP } = createRequire(import.meta.url)("cloudevents");

const event = new CloudEvent({
  id: "7",
  source: "/sdk/javascript",
  type: "tokens.used",
  subject: "acme",
  data: { feature: "gpt-4", tokens: 1500 },
});

async function send(mode, { headers, body }) {
  const answer = await fetch(process.argv[2], { method: "POST", headers, body });
  console.log(JSON.stringify({ mode, status: answer.status, body: await answer.json() }));
}

await send("binary", HTTP.binary(event));
await send("structured", HTTP.structured(event));
await send("binary, typed", HTTP.binary(event.cloneWith({ datacontenttype: "application/json" })));
// The SDK reads batches, and writes an event as one of them by its own JSON.
await send("batch", {
  headers: { "Content-Type": "application/cloudevents-batch+json" },
  body: JSON.stringify([event]),
});
