// Uses a mesh through OpenAI's own SDK: node client.js BASE_URL MODEL. Prints what it got as JSON.

import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "Hello" }];

async function models() {
  const names = [];
  for await (const each of client.models.list()) names.push(each.id);
  return { names, retrieved: (await client.models.retrieve(model)).id };
}

async function chat() {
  const answer = await client.chat.completions.create({ model, messages, max_tokens: 20, seed: 1 });
  return {
    object: answer.object,
    content: answer.choices[0].message.content,
    finishReason: answer.choices[0].finish_reason,
    usage: answer.usage,
  };
}

async function stream() {
  const chunks = await client.chat.completions.create({
    model,
    messages,
    max_tokens: 20,
    seed: 1,
    stream: true,
    stream_options: { include_usage: true },
  });
  let content = "";
  let usage = null;
  let finishReason = null;
  for await (const chunk of chunks) {
    content += chunk.choices[0]?.delta.content ?? "";
    finishReason = chunk.choices[0]?.finish_reason ?? finishReason;
    usage = chunk.usage ?? usage;
  }
  return { content, finishReason, usage };
}

// The SDK's own accumulation of a stream, which is strict about its order.
async function runner() {
  const run = client.chat.completions.stream({ model, messages, max_tokens: 20, seed: 1 });
  return { content: await run.finalContent() };
}

async function completion() {
  const answer = await client.completions.create({ model, prompt: ["a", "b"], max_tokens: 3 });
  return { indices: answer.choices.map((choice) => choice.index) };
}

async function abandoned() {
  const chunks = await client.chat.completions.create({ model, messages, stream: true });
  for await (const chunk of chunks) return { id: chunk.id };
}

async function failure(request) {
  try {
    await request();
  } catch (error) {
    const { status, type, code, param, requestID } = error;
    return { name: error.constructor.name, status, type, code, param, requestID };
  }
  return null;
}

const results = {
  models: await models(),
  chat: await chat(),
  stream: await stream(),
  runner: await runner(),
  completion: await completion(),
  abandoned: await abandoned(),
  unknownModel: await failure(() =>
    client.chat.completions.create({ model: "nobody", messages }),
  ),
  badField: await failure(() =>
    client.chat.completions.create({ model, messages, temperature: 3, stream: true }),
  ),
};
console.log(JSON.stringify(results));
