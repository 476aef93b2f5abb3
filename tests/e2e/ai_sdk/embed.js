// Asks a mesh for embeddings through Vercel's AI SDK: node embed.js BASE_URL MODEL.

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { cosineSimilarity, embed, embedMany } from "ai";

const [baseURL, name] = process.argv.slice(2);
const model = createOpenAICompatible({ name: "mesh", baseURL }).embeddingModel(name);
const values = ["The quick brown fox", "numbers"];
const { embeddings, usage } = await embedMany({ model, values, maxRetries: 0 });
assert.equal(embeddings.length, 2);
assert.ok(usage.tokens > 0);
const { embedding } = await embed({ model, value: values[0], maxRetries: 0 });
assert.ok(cosineSimilarity(embedding, embeddings[0]) > 0.999);
assert.ok(cosineSimilarity(embedding, embeddings[1]) < 0.999);
console.log("embeddings");
