// Uses a mesh through Vercel's AI SDK: node use.js BASE_URL MODEL. Prints the name of each use that went
// well; the first that does not ends it.

import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateObject, generateText, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const [baseURL, name] = process.argv.slice(2);
const mesh = createOpenAICompatible({
  name: "mesh",
  baseURL,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const openai = createOpenAI({ baseURL, apiKey: "unused" });
const prompt = "What is the capital of France?";
// Few values and no other fields: the demo model would write on for ever.
const city = z.enum(["Paris", "Rome"]);
const City = z.strictObject({ name: city, isCapital: z.boolean() });
const weather = tool({
  description: "The weather of a city.",
  inputSchema: z.strictObject({ city }),
  execute: async (asked) => `sunny in ${asked.city}`,
});
const settings = { model: mesh(name), prompt, temperature: 0, maxOutputTokens: 400, maxRetries: 0 };
const forced = { ...settings, tools: { weather }, toolChoice: { type: "tool", toolName: "weather" } };

async function chat() {
  const answer = await generateText(settings);
  assert.match(answer.text, /Paris/);
  assert.equal(answer.finishReason, "stop");
  assert.ok(answer.usage.inputTokens > 0 && answer.usage.outputTokens > 0);
}

async function stream() {
  const whole = await generateText(settings);
  const streamed = streamText(settings);
  let text = "";
  for await (const piece of streamed.textStream) text += piece;
  assert.equal(text, whole.text);
  assert.equal(await streamed.finishReason, "stop");
  assert.equal((await streamed.usage).outputTokens, whole.usage.outputTokens);
}

async function toolCall() {
  // With OpenAI, too, a function that is named leaves the finish reason at "stop".
  const reasons = [["required", "tool-calls"], [forced.toolChoice, "stop"]];
  for (const [toolChoice, reason] of reasons) {
    const { toolCalls, toolResults, finishReason } = await generateText({ ...forced, toolChoice });
    assert.equal(finishReason, reason);
    assert.equal(toolCalls[0].toolName, "weather");
    assert.ok(city.options.includes(toolCalls[0].input.city));
    assert.equal(toolResults[0].output, `sunny in ${toolCalls[0].input.city}`);
  }
}

async function streamedToolCall() {
  const kinds = new Set();
  const streamed = streamText(forced);
  for await (const part of streamed.fullStream) {
    if (part.type === "error") throw part.error;
    kinds.add(part.type);
  }
  for (const kind of ["tool-input-start", "tool-input-delta", "tool-call", "tool-result"])
    assert.ok(kinds.has(kind), `no ${kind} among ${[...kinds]}`);
  assert.ok(city.options.includes((await streamed.toolCalls)[0].input.city));
}

async function structured() {
  const { output } = await generateText({ ...settings, output: Output.object({ schema: City }) });
  City.parse(output);
  City.parse((await generateObject({ ...settings, schema: City })).object);
  const streamed = streamObject({ ...settings, schema: City });
  for await (const part of streamed.partialObjectStream) assert.equal(typeof part, "object");
  City.parse(await streamed.object);
}

// OpenAI's own provider speaks both of OpenAI's APIs.
async function openaiProvider() {
  for (const model of [openai.chat(name), openai.responses(name)]) {
    const answer = await generateText({ ...settings, model });
    assert.match(answer.text, /Paris/);
    const streamed = streamText({ ...settings, model });
    assert.equal(await streamed.text, answer.text);
    const { toolCalls } = await generateText({ ...forced, model });
    assert.ok(city.options.includes(toolCalls[0].input.city));
  }
}

async function unknownModel() {
  await assert.rejects(generateText({ ...settings, model: mesh("nobody") }), (error) => {
    assert.ok(APICallError.isInstance(error), error);
    assert.equal(error.statusCode, 404);
    return true;
  });
}

for (const use of [chat, stream, toolCall, streamedToolCall, structured, openaiProvider, unknownModel]) {
  await use();
  console.log(use.name);
}
