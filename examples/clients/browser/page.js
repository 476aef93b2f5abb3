// Chats with a mesh from a page, over gRPC-Web: streams, stops early, and shows errors.

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "./build/generated/google/rpc/error_details_pb.js";
import { ChatService } from "./build/generated/tokenmesh/gateway/v1/chat_pb.js";
import { Role } from "./build/generated/tokenmesh/mesh/v1/chat_pb.js";

const LIMIT_MS = 60_000;

const element = (id) => document.getElementById(id);
const answer = element("answer");
const outcome = element("outcome");
const parameters = new URLSearchParams(location.search);
for (const name of ["mesh", "model"]) {
  if (parameters.has(name)) element(name).value = parameters.get(name);
}

let leaving = new AbortController();

async function ask() {
  const transport = createGrpcWebTransport({ baseUrl: element("mesh").value });
  const call = createClient(ChatService, transport).chat(
    {
      model: element("model").value,
      prompt: {
        messages: [
          {
            role: Role.USER,
            content: [{ part: { case: "text", value: element("question").value } }],
          },
        ],
      },
      sampling: { temperature: Number(element("temperature").value) },
    },
    { signal: leaving.signal, timeoutMs: LIMIT_MS },
  );
  for await (const { event } of call) {
    if (event.case === "chunk") answer.textContent += event.value.text;
    if (event.case === "completed") {
      outcome.textContent = `${event.value.usage.completionTokens} tokens`;
    }
  }
}

// What failed, why by its stable name, which field is at fault, when to try again.
function explained(error) {
  const lines = [`${Code[error.code]}: ${error.rawMessage}`];
  for (const { reason } of error.findDetails(ErrorInfoSchema)) lines.push(`reason: ${reason}`);
  for (const { fieldViolations } of error.findDetails(BadRequestSchema)) {
    for (const { field } of fieldViolations) lines.push(`field: ${field}`);
  }
  for (const { retryDelay } of error.findDetails(RetryInfoSchema)) {
    lines.push(`retry after: ${Number(retryDelay.seconds) * 1000 + retryDelay.nanos / 1e6} ms`);
  }
  return lines.join("\n");
}

function showBusy(busy) {
  element("ask").disabled = busy;
  element("stop").disabled = !busy;
}

element("question-form").addEventListener("submit", async (submission) => {
  submission.preventDefault();
  leaving = new AbortController();
  answer.textContent = "";
  outcome.textContent = "…";
  outcome.className = "";
  showBusy(true);
  try {
    await ask();
  } catch (problem) {
    const error = ConnectError.from(problem);
    const stopped = error.code === Code.Canceled && leaving.signal.aborted;
    outcome.className = stopped ? "" : "failed";
    outcome.textContent = stopped ? "stopped" : explained(error);
  }
  showBusy(false);
});

// Ending the request is all it takes: the mesh stops computing the answer.
element("stop").addEventListener("click", () => leaving.abort());
