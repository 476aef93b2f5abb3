// Uses /v1/responses of a mesh through OpenAI's own SDK: node responses.js BASE_URL MODEL. Prints what
// it got as JSON.

import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const asked = { model, input: "Hello", max_output_tokens: 20, seed: 1 };

async function whole() {
  const response = await client.responses.create(asked);
  const { id, object, status, output_text: text, usage } = response;
  return { id, object, status, text, usage };
}

// Raw events, as they come.
async function events() {
  const found = [];
  const stream = await client.responses.create({ ...asked, stream: true });
  for await (const event of stream) found.push([event.sequence_number, event.type]);
  return found;
}

// The SDK's own accumulation of a stream, which is strict about its order.
async function stream() {
  const response = await client.responses.stream(asked).finalResponse();
  return { status: response.status, text: response.output_text };
}

async function conversation() {
  const first = await client.responses.create(asked);
  const second = await client.responses.create({
    ...asked,
    input: [{ role: "user", content: [{ type: "input_text", text: "Go on." }] }],
    previous_response_id: first.id,
  });
  const roles = [];
  const pages = client.responses.inputItems.list(second.id, { order: "asc", limit: 2 });
  for await (const item of pages) roles.push(item.role);
  const retrieved = await client.responses.retrieve(second.id);
  await client.responses.delete(second.id);
  return {
    roles,
    same: JSON.stringify(retrieved.output) === JSON.stringify(second.output),
    deleted: await failure(() => client.responses.retrieve(second.id)),
  };
}

async function background() {
  let response = await client.responses.create({ ...asked, background: true });
  const first = response.status;
  while (["queued", "in_progress"].includes(response.status))
    response = await client.responses.retrieve(response.id);
  const late = await failure(() => client.responses.cancel(response.id));
  return { first, last: response.status, text: response.output_text, late };
}

async function failure(request) {
  try {
    await request();
  } catch (error) {
    const { status, type, code, param } = error;
    return { name: error.constructor.name, status, type, code, param };
  }
  return null;
}

const results = {
  whole: await whole(),
  events: await events(),
  stream: await stream(),
  conversation: await conversation(),
  background: await background(),
  badField: await failure(() => client.responses.create({ ...asked, tools: [{ type: "mcp" }] })),
};
console.log(JSON.stringify(results));
