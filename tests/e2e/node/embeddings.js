// Asks a mesh for embeddings through OpenAI's Node SDK and prints what came of it, as JSON.
//   node embeddings.js BASE_URL MODEL
import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });

async function embed(request) {
  const answer = await client.embeddings.create({ model, ...request });
  return {
    vectors: answer.data.flatMap((each) => Array.from(each.embedding)),
    dimensions: answer.data.map((each) => each.embedding.length),
    indices: answer.data.map((each) => each.index),
    usage: answer.usage,
  };
}

async function failure(request) {
  try {
    await request();
  } catch (error) {
    const { status, code, param } = error;
    return { name: error.constructor.name, status, code, param };
  }
  return null;
}

const texts = ["The quick brown fox", "numbers"];
const results = {
  byDefault: await embed({ input: texts }),
  floats: await embed({ input: texts, encoding_format: "float" }),
  cut: await embed({ input: "one text", dimensions: 5 }),
  tokens: await embed({ input: [2, 9, 3] }),
  badField: await failure(() => embed({ input: "x", dimensions: 9999 })),
};
console.log(JSON.stringify(results));
