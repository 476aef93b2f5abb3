// Streams a response that thinks and calls tools, through OpenAI's own SDK, and answers the call:
// node response_tools.js BASE_URL MODEL INPUT. Prints what it got as JSON.

import OpenAI from "openai";

const [baseURL, model, input] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function", name: "weather", parameters, strict: false }];

const stream = client.responses.stream({ model, input, tools });
const kinds = [];
for await (const event of stream) kinds.push(event.type);
const first = await stream.finalResponse();
const call = first.output.find((item) => item.type === "function_call");

const second = await client.responses.create({
  model,
  previous_response_id: first.id,
  input: [
    { type: "function_call_output", call_id: call.call_id, output: "Clear." },
    { role: "user", content: "Thanks." },
  ],
  tools,
});

console.log(
  JSON.stringify({
    items: first.output.map((item) => item.type),
    thought: first.output.find((item) => item.type === "reasoning").content[0].text,
    text: first.output_text,
    call: { name: call.name, arguments: JSON.parse(call.arguments) },
    last: kinds.at(-1),
    second: second.output_text,
  }),
);
