// Uses the example page as a person would, and prints what it showed, as JSON:
//
//   node drive.js CHROMIUM PROFILE_FOLDER PAGE_URL MESH_URL CLOSED_MESH_URL MODEL SCREENSHOT

import { chromium } from "playwright-core";

const [executablePath, profile, pageUrl, meshUrl, closedMeshUrl, model, screenshot] =
  process.argv.slice(2);

// A machine without a user's session, and without the network that Chromium asks for by itself.
const args = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  args,
  headless: true,
});
const page = await context.newPage();
page.setDefaultTimeout(30_000);
const results = { console: [] };
page.on("console", (entry) => results.console.push(entry.text()));
page.on("pageerror", (error) => results.console.push(String(error)));

const ask = async (fields) => {
  for (const [id, value] of Object.entries(fields)) await page.fill(`#${id}`, value);
  await page.click("#ask");
};
const answer = () => page.textContent("#answer");
const growsBeyond = (length) =>
  page.waitForFunction(
    (known) => document.getElementById("answer").textContent.length > known,
    length,
  );
const outcome = async () => {
  await page.waitForFunction(() => document.getElementById("outcome").textContent !== "…");
  return page.textContent("#outcome");
};

await page.goto(`${pageUrl}?${new URLSearchParams({ mesh: meshUrl, model })}`);
results.streams = [];
for (let round = 0; round < 2; round += 1) {
  await ask({ question: "Tell me a story." });
  await growsBeyond(0);
  const first = await answer();
  await growsBeyond(first.length);
  const second = await answer();
  await page.click("#stop");
  results.streams.push({ first, second, outcome: await outcome() });
}

await ask({ temperature: "9" });
results.badField = await outcome();
await page.screenshot({ path: screenshot });
await ask({ temperature: "1", model: "nobody" });
results.unknownModel = await outcome();
results.consoleBeforeClosed = results.console.length;
await ask({ model, mesh: closedMeshUrl });
results.closedMesh = await outcome();

await context.close();
console.log(JSON.stringify(results));
