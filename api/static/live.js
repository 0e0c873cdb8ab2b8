// Keeps the numbers of the page live. Text only ever becomes text: no markup is made from it.
"use strict";

const rows = new Map();
for (const row of document.querySelectorAll("tr[data-tenant]")) {
  rows.set(row.dataset.tenant, row);
}

function show(message) {
  // A tenant came or went: the server draws the page anew.
  if (message.tenants.length !== rows.size || !message.tenants.every((tenant) => rows.has(tenant))) {
    location.reload();
    return;
  }
  for (const row of message.rows) {
    const line = rows.get(row.tenant);
    for (const field of line.querySelectorAll("[data-field]")) {
      field.textContent = row[field.dataset.field];
    }
    const meter = line.querySelector("meter");
    meter.value = row.percent;
    meter.dataset.level = row.level;
  }
  document.getElementById("as-of").textContent = message.asOf;
}

const stream = new EventSource("/live");
stream.addEventListener("open", () => { document.getElementById("live").textContent = "Live, as of"; });
stream.addEventListener("error", () => { document.getElementById("live").textContent = "Reconnecting; as of"; });
stream.addEventListener("usage", (event) => show(JSON.parse(event.data)));
