// Chats with a mesh over gRPC: streams, leaves early, interrupts, and reads errors.
//
//	./build.sh && build/chat [HOST:PORT] [MODEL]
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	gateway "tokenmesh/gateway/v1"
	mesh "tokenmesh/mesh/v1"
)

const (
	limit               = 60 * time.Second
	chunksBeforeLeaving = 5
)

var short = &mesh.SamplingParameters{MaxTokens: proto.Uint32(40)}

// client is what one program asks of one model.
type client struct {
	chat  gateway.ChatServiceClient
	model string
}

// ask prints an answer as it comes.
func (c *client) ask(ctx context.Context, model, question string, sampling *mesh.SamplingParameters) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stream, err := c.chat.Chat(ctx, c.request(model, question, sampling))
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if chunk := response.GetChunk(); chunk != nil {
			fmt.Print(chunk.GetText())
		}
		if completed := response.GetCompleted(); completed != nil {
			fmt.Printf("\n(%d tokens)\n", completed.GetUsage().GetCompletionTokens())
		}
	}
}

// leaveEarly cancels the call after a few chunks; the mesh stops computing the answer.
func (c *client) leaveEarly(ctx context.Context, question string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stream, err := c.chat.Chat(ctx, c.request(c.model, question, nil))
	if err != nil {
		return err
	}
	chunks := 0
	for chunks < chunksBeforeLeaving {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if chunk := response.GetChunk(); chunk != nil {
			fmt.Print(chunk.GetText())
			chunks++
		}
	}
	cancel()
	fmt.Printf("\n(left after %d chunks)\n", chunks)
	return nil
}

// converse holds a conversation: interrupts the first answer, then takes another turn.
func (c *client) converse(ctx context.Context, first, second string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.chat.Converse(ctx)
	if err != nil {
		return err
	}
	// An error of Send says only that the stream has ended; Recv says why.
	opening := &gateway.ConverseRequest_Open{Model: c.model}
	stream.Send(&gateway.ConverseRequest{Frame: &gateway.ConverseRequest_Open_{Open: opening}})
	stream.Send(turn(1, first, nil))
	chunks := 0
	endTurn := func(number uint32, event string, usage *mesh.Usage) {
		fmt.Printf("\n(%s, %d tokens)\n", event, usage.GetCompletionTokens())
		if number == 1 {
			stream.Send(turn(2, second, short))
		} else {
			stream.CloseSend()
		}
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch event := response.GetEvent().(type) {
		case *gateway.ConverseResponse_Chunk:
			fmt.Print(event.Chunk.GetText())
			chunks++
			if response.GetTurnNumber() == 1 && chunks == chunksBeforeLeaving {
				interrupt := &gateway.ConverseRequest_Interrupt_{Interrupt: &gateway.ConverseRequest_Interrupt{}}
				stream.Send(&gateway.ConverseRequest{Frame: interrupt})
			}
		case *gateway.ConverseResponse_Failed_:
			fmt.Printf("\n%s\n  reason: %s\n", event.Failed.GetMessage(), event.Failed.GetReason())
			stream.CloseSend()
		case *gateway.ConverseResponse_Interrupted_:
			endTurn(response.GetTurnNumber(), "interrupted", event.Interrupted.GetUsage())
		case *gateway.ConverseResponse_Completed:
			endTurn(response.GetTurnNumber(), "completed", event.Completed.GetUsage())
		}
	}
}

func (c *client) request(model, question string, sampling *mesh.SamplingParameters) *gateway.ChatRequest {
	return &gateway.ChatRequest{
		Model:    model,
		Prompt:   &mesh.ChatPrompt{Messages: []*mesh.Message{userMessage(question)}},
		Sampling: sampling,
	}
}

func userMessage(text string) *mesh.Message {
	part := &mesh.ContentPart{Part: &mesh.ContentPart_Text{Text: text}}
	return &mesh.Message{Role: mesh.Role_ROLE_USER, Content: []*mesh.ContentPart{part}}
}

func turn(number uint32, question string, sampling *mesh.SamplingParameters) *gateway.ConverseRequest {
	turn := &gateway.ConverseRequest_Turn{
		Number:   number,
		Messages: []*mesh.Message{userMessage(question)},
		Sampling: sampling,
	}
	return &gateway.ConverseRequest{Frame: &gateway.ConverseRequest_Turn_{Turn: turn}}
}

// explain prints what failed, why by its stable name, which field is at fault, when to try again.
func explain(err error) {
	failure := status.Convert(err)
	fmt.Printf("%s: %s\n", code.Code(failure.Code()), failure.Message())
	for _, detail := range failure.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			fmt.Printf("  reason: %s\n", detail.GetReason())
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				fmt.Printf("  field: %s\n", violation.GetField())
			}
		case *errdetails.RetryInfo:
			delay := detail.GetRetryDelay()
			fmt.Printf("  retry after: %d ms\n", delay.GetSeconds()*1000+int64(delay.GetNanos())/1e6)
		}
	}
}

func run(address, model string) error {
	connection, err := grpc.Dial(address, grpc.WithInsecure())
	if err != nil {
		return err
	}
	defer connection.Close()
	client := &client{chat: gateway.NewChatServiceClient(connection), model: model}
	ctx := context.Background()
	if key := os.Getenv("TOKENMESH_API_KEY"); key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
	}

	fmt.Println("> What is TokenMesh?")
	if err := client.ask(ctx, model, "What is TokenMesh?", short); err != nil {
		return err
	}
	fmt.Println("> Tell me a story.")
	if err := client.leaveEarly(ctx, "Tell me a story."); err != nil {
		return err
	}
	fmt.Println("> Tell me a story. Then: What is the capital of France?")
	if err := client.converse(ctx, "Tell me a story.", "What is the capital of France?"); err != nil {
		return err
	}

	fmt.Println("> a temperature of 9")
	hot := &mesh.SamplingParameters{Temperature: proto.Float64(9)}
	if err := client.ask(ctx, model, "Hello", hot); err != nil {
		explain(err)
	}
	fmt.Println("> a model that nobody serves")
	if err := client.ask(ctx, "nobody", "Hello", nil); err != nil {
		explain(err)
	}
	return nil
}

func main() {
	address, model := "127.0.0.1:8000", "tokenmesh-demo"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	if len(os.Args) > 2 {
		model = os.Args[2]
	}
	if err := run(address, model); err != nil {
		explain(err)
		os.Exit(1)
	}
}
