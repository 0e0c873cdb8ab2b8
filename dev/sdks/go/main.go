// Sends an event as the Go SDK makes it, in all three modes.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

func main() {
	used := event.New()
	used.SetID("7")
	used.SetSource("/sdk/go")
	used.SetType("tokens.used")
	used.SetSubject("acme")
	data := map[string]any{"feature": "gpt-4", "tokens": 1500}
	if err := used.SetData(event.ApplicationJSON, data); err != nil {
		log.Fatal(err)
	}
	modes := map[string]func(context.Context) context.Context{
		"binary":     binding.WithForceBinary,
		"structured": binding.WithForceStructured,
	}
	for mode, force := range modes {
		request, err := http.NewRequest(http.MethodPost, os.Args[1], nil)
		if err != nil {
			log.Fatal(err)
		}
		message := binding.ToMessage(&used)
		if err := cehttp.WriteRequest(force(context.Background()), message, request); err != nil {
			log.Fatal(err)
		}
		send(mode, request)
	}
	for mode, events := range map[string][]event.Event{"batch": {used}, "empty batch": {}} {
		request, err := cehttp.NewHTTPRequestFromEvents(context.Background(), os.Args[1], events)
		if err != nil {
			log.Fatal(err)
		}
		send(mode, request)
	}
}

func send(mode string, request *http.Request) {
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		log.Fatal(err)
	}
	line := map[string]any{"mode": mode, "status": answer.StatusCode, "body": json.RawMessage(body)}
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		fmt.Fprintln(os.Stderr, string(body))
		log.Fatal(err)
	}
}
