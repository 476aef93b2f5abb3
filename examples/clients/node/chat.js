// Streams one answer over gRPC: node chat.js [--address HOST:PORT] [--model NAME] "your question".
//
// Nothing is generated: proto/, compiled to one descriptor set, is loaded when this starts. First run
// npm install.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const DESCRIPTORS = new URL("../../../gen/envoy/tokenmesh.pb", import.meta.url);

// Every service of the gateway, such as loadGateway().ChatService.
function loadGateway() {
  const definitions = protoLoader.loadFileDescriptorSetFromBuffer(readFileSync(DESCRIPTORS), {
    keepCase: true,
    defaults: true,
    longs: Number,
    enums: String,
    oneofs: true,
  });
  return grpc.loadPackageDefinition(definitions).tokenmesh.gateway.v1;
}

// The name of the first model that the mesh serves.
function firstModel(models) {
  return new Promise((resolve, reject) => {
    models.ListModels({}, (error, response) => {
      if (error) reject(error);
      else if (response.models.length === 0) reject(new Error("the mesh serves no model just now"));
      else resolve(response.models[0].model.name);
    });
  });
}

async function main() {
  const { values, positionals } = parseArgs({
    options: {
      address: { type: "string", default: "127.0.0.1:8000" },
      model: { type: "string" },
    },
    allowPositionals: true,
  });
  if (positionals.length !== 1) throw new Error("give one question");
  const gateway = loadGateway();
  const credentials = grpc.credentials.createInsecure();
  const models = new gateway.ModelService(values.address, credentials);
  const chat = new gateway.ChatService(values.address, credentials);
  try {
    const call = chat.Chat({
      model: values.model ?? (await firstModel(models)),
      prompt: { messages: [{ role: "ROLE_USER", content: [{ text: positionals[0] }] }] },
    });
    for await (const { event, chunk, completed } of call) {
      if (event === "chunk") process.stdout.write(chunk.text);
      if (event === "completed") {
        console.error(`\n(${completed.usage.completion_tokens} tokens)`);
      }
    }
  } finally {
    models.close();
    chat.close();
  }
}

main().catch((error) => {
  const code = grpc.status[error.code];
  console.error(code ? `${code}: ${error.details}` : error.message);
  process.exitCode = 1;
});
