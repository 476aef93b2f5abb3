// Chats with a mesh over gRPC: streams, leaves early, interrupts, and reads errors.
//
//   make -j && build/chat [HOST:PORT] [MODEL]

#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <string>

#include <grpcpp/grpcpp.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tokenmesh/gateway/v1/chat.grpc.pb.h"

namespace gateway = tokenmesh::gateway::v1;
namespace mesh = tokenmesh::mesh::v1;

constexpr std::chrono::seconds kLimit{60};
constexpr int kChunksBeforeLeaving = 5;

void AddUserMessage(google::protobuf::RepeatedPtrField<mesh::Message>* messages,
                    const std::string& text) {
  mesh::Message* message = messages->Add();
  message->set_role(mesh::ROLE_USER);
  message->add_content()->set_text(text);
}

mesh::SamplingParameters Short() {
  mesh::SamplingParameters sampling;
  sampling.set_max_tokens(40);
  return sampling;
}

gateway::ConverseRequest Turn(int number, const std::string& question,
                              const mesh::SamplingParameters* sampling = nullptr) {
  gateway::ConverseRequest request;
  gateway::ConverseRequest::Turn* turn = request.mutable_turn();
  turn->set_number(number);
  AddUserMessage(turn->mutable_messages(), question);
  if (sampling != nullptr) *turn->mutable_sampling() = *sampling;
  return request;
}

// What one program asks of one model.
class Client {
 public:
  Client(const std::shared_ptr<grpc::Channel>& channel, std::string model)
      : chat_(gateway::ChatService::NewStub(channel)), model_(std::move(model)) {}

  // Prints an answer as it comes.
  grpc::Status Ask(const std::string& question, const mesh::SamplingParameters& sampling = {}) {
    return Ask(model_, question, sampling);
  }

  grpc::Status Ask(const std::string& model, const std::string& question,
                   const mesh::SamplingParameters& sampling = {}) {
    grpc::ClientContext context;
    Prepare(context, kLimit);
    auto reader = chat_->Chat(&context, Request(model, question, sampling));
    gateway::ChatResponse response;
    while (reader->Read(&response)) {
      if (response.has_chunk()) std::cout << response.chunk().text() << std::flush;
      if (response.has_completed()) {
        std::cout << "\n(" << response.completed().usage().completion_tokens() << " tokens)\n";
      }
    }
    return reader->Finish();
  }

  // Cancels the call after a few chunks; the mesh stops computing the answer.
  grpc::Status LeaveEarly(const std::string& question) {
    grpc::ClientContext context;
    Prepare(context, kLimit);
    auto reader = chat_->Chat(&context, Request(model_, question, {}));
    gateway::ChatResponse response;
    int chunks = 0;
    while (chunks < kChunksBeforeLeaving && reader->Read(&response)) {
      if (!response.has_chunk()) continue;
      std::cout << response.chunk().text() << std::flush;
      ++chunks;
    }
    context.TryCancel();
    while (reader->Read(&response)) {
    }
    grpc::Status status = reader->Finish();
    std::cout << "\n(left after " << chunks << " chunks)\n";
    return status.error_code() == grpc::StatusCode::CANCELLED ? grpc::Status::OK : status;
  }

  // Holds a conversation: interrupts the first answer, then takes another turn.
  grpc::Status Converse(const std::string& first, const std::string& second) {
    grpc::ClientContext context;
    Prepare(context);
    auto stream = chat_->Converse(&context);
    gateway::ConverseRequest opening;
    opening.mutable_open()->set_model(model_);
    // A Write that fails says only that the stream has ended; Finish says why.
    stream->Write(opening);
    stream->Write(Turn(1, first));

    const auto end_turn = [&](unsigned number, const char* event, const mesh::Usage& usage) {
      std::cout << "\n(" << event << ", " << usage.completion_tokens() << " tokens)\n";
      const mesh::SamplingParameters sampling = Short();
      if (number == 1) {
        stream->Write(Turn(2, second, &sampling));
      } else {
        stream->WritesDone();
      }
    };
    gateway::ConverseResponse response;
    int chunks = 0;
    while (stream->Read(&response)) {
      if (response.has_chunk()) {
        std::cout << response.chunk().text() << std::flush;
        ++chunks;
        if (response.turn_number() == 1 && chunks == kChunksBeforeLeaving) {
          gateway::ConverseRequest interrupt;
          interrupt.mutable_interrupt();
          stream->Write(interrupt);
        }
      } else if (response.has_failed()) {
        std::cout << "\n" << response.failed().message() << "\n  reason: "
                  << response.failed().reason() << "\n";
        stream->WritesDone();
      } else if (response.has_interrupted()) {
        end_turn(response.turn_number(), "interrupted", response.interrupted().usage());
      } else if (response.has_completed()) {
        end_turn(response.turn_number(), "completed", response.completed().usage());
      }
    }
    return stream->Finish();
  }

 private:
  static void Prepare(grpc::ClientContext& context) {
    if (const char* key = std::getenv("TOKENMESH_API_KEY")) {
      context.AddMetadata("authorization", std::string("Bearer ") + key);
    }
  }

  static void Prepare(grpc::ClientContext& context, std::chrono::seconds limit) {
    Prepare(context);
    context.set_deadline(std::chrono::system_clock::now() + limit);
  }

  static gateway::ChatRequest Request(const std::string& model, const std::string& question,
                                      const mesh::SamplingParameters& sampling) {
    gateway::ChatRequest request;
    request.set_model(model);
    AddUserMessage(request.mutable_prompt()->mutable_messages(), question);
    *request.mutable_sampling() = sampling;
    return request;
  }

  std::unique_ptr<gateway::ChatService::Stub> chat_;
  std::string model_;
};

// Prints what failed, why by its stable name, which field is at fault, when to try again.
void Explain(const grpc::Status& failure) {
  google::rpc::Status status;
  status.ParseFromString(failure.error_details());
  std::cout << "code " << failure.error_code() << ": " << failure.error_message() << "\n";
  for (const google::protobuf::Any& detail : status.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad_request;
    google::rpc::RetryInfo retry;
    if (detail.UnpackTo(&info)) {
      std::cout << "  reason: " << info.reason() << "\n";
    } else if (detail.UnpackTo(&bad_request)) {
      for (const auto& violation : bad_request.field_violations()) {
        std::cout << "  field: " << violation.field() << "\n";
      }
    } else if (detail.UnpackTo(&retry)) {
      const auto& delay = retry.retry_delay();
      std::cout << "  retry after: " << delay.seconds() * 1000 + delay.nanos() / 1000000 << " ms\n";
    }
  }
}

int main(int argc, char** argv) {
  const std::string address = argc > 1 ? argv[1] : "127.0.0.1:8000";
  const std::string model = argc > 2 ? argv[2] : "tokenmesh-demo";
  Client client(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()), model);

  const std::pair<const char*, std::function<grpc::Status()>> steps[] = {
      {"What is TokenMesh?", [&] { return client.Ask("What is TokenMesh?", Short()); }},
      {"Tell me a story.", [&] { return client.LeaveEarly("Tell me a story."); }},
      {"Tell me a story. Then: What is the capital of France?",
       [&] { return client.Converse("Tell me a story.", "What is the capital of France?"); }},
  };
  for (const auto& [title, step] : steps) {
    std::cout << "> " << title << "\n";
    const grpc::Status status = step();
    if (!status.ok()) {
      Explain(status);
      return 1;
    }
  }

  std::cout << "> a temperature of 9\n";
  mesh::SamplingParameters hot;
  hot.set_temperature(9);
  Explain(client.Ask("Hello", hot));
  std::cout << "> a model that nobody serves\n";
  Explain(client.Ask("nobody", "Hello"));
}
