// Sends the same request over and over, five at a time over the connections that fetch keeps, and counts what is
// answered.

import { readFileSync } from "node:fs";

const request = JSON.parse(readFileSync(0, "utf8"));
const answers = {};
let left = request.times;

function body() {
  const whole = Buffer.alloc(request.bytes, "x");
  // Without a length it goes in chunks.
  return request.chunked ? new Blob([whole]).stream() : whole;
}

async function once() {
  try {
    const { method, headers } = request;
    const url = `http://${request.host}${request.path}`;
    const answer = await fetch(url, { method, headers, body: body(), duplex: "half" });
    const text = await answer.json();
    return `${answer.status} ${text.code}`;
  } catch (error) {
    return `${error}: ${error.cause}`;
  }
}

async function lane() {
  while (left-- > 0) {
    const came = await once();
    answers[came] = (answers[came] ?? 0) + 1;
  }
}

await Promise.all(Array.from({ length: 5 }, lane));
console.log(JSON.stringify(answers));
