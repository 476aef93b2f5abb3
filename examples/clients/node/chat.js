// Chats with a mesh over gRPC: streams, leaves early, interrupts, and reads errors.
//
//   npm install && node chat.js [HOST:PORT] [MODEL]
//
// Nothing is generated: the protos are loaded when this starts.

import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const LIMIT_MS = 60_000;
const CHUNKS_BEFORE_LEAVING = 5;
const SHORT = { max_tokens: 40 };

const protos = protoLoader.loadSync(
  ["tokenmesh/gateway/v1/chat.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"],
  {
    includeDirs: ["../../../proto", "node_modules/google-proto-files"].map((folder) =>
      fileURLToPath(new URL(folder, import.meta.url)),
    ),
    keepCase: true,
    longs: Number,
    enums: String,
    oneofs: true,
    // Messages start with every field in place, `usage.completion_tokens` of 0 among them.
    defaults: true,
  },
);
const { ChatService } = grpc.loadPackageDefinition(protos).tokenmesh.gateway.v1;

const show = (text) => process.stdout.write(text);
const userMessage = (text) => ({ role: "ROLE_USER", content: [{ text }] });

// What one program asks of one model.
class Client {
  constructor(address, model) {
    this.chat = new ChatService(address, grpc.credentials.createInsecure());
    this.model = model;
    this.metadata = new grpc.Metadata();
    const key = process.env.TOKENMESH_API_KEY;
    if (key) this.metadata.set("authorization", `Bearer ${key}`);
  }

  // Prints an answer as it comes.
  async ask(question, sampling, model = this.model) {
    for await (const { event, chunk, completed } of this.call(question, sampling, model)) {
      if (event === "chunk") show(chunk.text);
      if (event === "completed") console.log(`\n(${completed.usage.completion_tokens} tokens)`);
    }
  }

  // Cancels the call after a few chunks; the mesh stops computing the answer.
  async leaveEarly(question) {
    const call = this.call(question);
    let chunks = 0;
    try {
      for await (const { event, chunk } of call) {
        // What had come already is still handed out after cancelling.
        if (event !== "chunk" || chunks === CHUNKS_BEFORE_LEAVING) continue;
        show(chunk.text);
        chunks += 1;
        if (chunks === CHUNKS_BEFORE_LEAVING) call.cancel();
      }
    } catch (error) {
      if (error.code !== grpc.status.CANCELLED) throw error;
    }
    console.log(`\n(left after ${chunks} chunks)`);
  }

  // Holds a conversation: interrupts the first answer, then takes another turn.
  async converse(first, second) {
    const call = this.chat.Converse(this.metadata);
    call.write({ open: { model: this.model } });
    call.write({ turn: { number: 1, messages: [userMessage(first)] } });
    let chunks = 0;
    for await (const response of call) {
      const { event, turn_number } = response;
      if (event === "chunk") {
        show(response.chunk.text);
        chunks += 1;
        if (turn_number === 1 && chunks === CHUNKS_BEFORE_LEAVING) call.write({ interrupt: {} });
      } else if (event === "failed") {
        console.log(`\n${response.failed.message}\n  reason: ${response.failed.reason}`);
        call.end();
      } else if (event === "interrupted" || event === "completed") {
        console.log(`\n(${event}, ${response[event].usage.completion_tokens} tokens)`);
        if (turn_number === 1) {
          call.write({ turn: { number: 2, messages: [userMessage(second)], sampling: SHORT } });
        } else {
          call.end();
        }
      }
    }
  }

  call(question, sampling, model = this.model) {
    const request = { model, prompt: { messages: [userMessage(question)] }, sampling };
    return this.chat.Chat(request, this.metadata, { deadline: Date.now() + LIMIT_MS });
  }
}

// Prints what failed, why by its stable name, which field is at fault, when to try again.
function explain(error) {
  if (!(error.code in grpc.status)) throw error;
  console.log(`${grpc.status[error.code]}: ${error.details}`);
  const [packed] = error.metadata.get("grpc-status-details-bin");
  if (!packed) return;
  for (const detail of protos["google.rpc.Status"].deserialize(packed).details) {
    const name = detail.type_url.split("/").at(-1);
    const content = protos[name]?.deserialize(detail.value);
    if (name === "google.rpc.ErrorInfo") console.log(`  reason: ${content.reason}`);
    if (name === "google.rpc.BadRequest") {
      for (const { field } of content.field_violations) console.log(`  field: ${field}`);
    }
    if (name === "google.rpc.RetryInfo") {
      const { seconds, nanos } = content.retry_delay;
      console.log(`  retry after: ${seconds * 1000 + nanos / 1e6} ms`);
    }
  }
}

const [address = "127.0.0.1:8000", model = "tokenmesh-demo"] = process.argv.slice(2);
const client = new Client(address, model);
try {
  console.log("> What is TokenMesh?");
  await client.ask("What is TokenMesh?", SHORT);
  console.log("> Tell me a story.");
  await client.leaveEarly("Tell me a story.");
  console.log("> Tell me a story. Then: What is the capital of France?");
  await client.converse("Tell me a story.", "What is the capital of France?");

  console.log("> a temperature of 9");
  await client.ask("Hello", { temperature: 9 }).catch(explain);
  console.log("> a model that nobody serves");
  await client.ask("Hello", undefined, "nobody").catch(explain);
} catch (error) {
  explain(error);
  process.exitCode = 1;
} finally {
  client.chat.close();
}
