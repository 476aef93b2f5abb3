// Calls tools through OpenAI's own SDK: node tools.js BASE_URL MODEL. The model writes what the last
// message says. Prints what it got as JSON.

import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>';
const messages = [{ role: "user", content: `<think>\nHm\n</think>\n\nLet me see.\n${call}` }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const asked = [];

const weather = {
  type: "function",
  function: {
    name: "weather",
    description: "Looks at the sky.",
    parameters,
    parse: JSON.parse,
    function: ({ city }) => {
      asked.push(city);
      return `clear in ${city}`;
    },
  },
};
const { parse, function: run, ...described } = weather.function;
const tools = [{ type: "function", function: described }];

function told(choice) {
  const { content, tool_calls, reasoning_content } = choice.message;
  return {
    content,
    reasoning: reasoning_content,
    calls: tool_calls.map(({ type, function: called }) => ({ type, ...called })),
    finishReason: choice.finish_reason,
  };
}

// The SDK's own loop: it calls the function, and sends its result as the next turn.
async function loop(stream) {
  const runner = client.chat.completions.runTools({ model, messages, tools: [weather], stream });
  return { content: await runner.finalContent(), result: await runner.finalFunctionToolCallResult() };
}

const body = await client.chat.completions.create({ model, messages, tools });
const streamed = client.chat.completions.stream({ model, messages, tools });
const results = {
  body: told(body.choices[0]),
  stream: told((await streamed.finalChatCompletion()).choices[0]),
  loop: await loop(false),
  streamedLoop: await loop(true),
  asked,
};
console.log(JSON.stringify(results));
