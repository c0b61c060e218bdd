// Runs h2spec, a judge of HTTP/2 servers, against a port of this machine and prints a line of JSON for
// each of its cases. For tests/serving/h2spec_test.py.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

type verdict struct {
	Case    string `json:"case"` // "http2/5.1/3"
	What    string `json:"what"`
	Skipped bool   `json:"skipped"`
	Error   string `json:"error"` // "" = passed
}

func report(group *spec.TestGroup, out *json.Encoder) {
	for _, test := range append(group.Tests, group.StrictTests...) {
		result := test.Result
		if result == nil {
			continue
		}
		line := verdict{
			Case:    fmt.Sprintf("%s/%d", group.ID(), result.Sequence),
			What:    test.Desc,
			Skipped: result.Skipped,
		}
		if result.Failed {
			line.Error = result.Error.Error()
		}
		if err := out.Encode(line); err != nil {
			panic(err)
		}
	}
	for _, inner := range group.Groups {
		report(inner, out)
	}
}

func main() {
	port := flag.Int("port", 0, "of the server, on this machine")
	seconds := flag.Int("timeout", 5, "seconds that an answer may take")
	flag.Parse()
	// What h2spec says besides is for people: to standard error.
	lines := os.Stdout
	os.Stdout = os.Stderr
	judge := &config.Config{
		Host: "127.0.0.1", Port: *port, Path: "/", Strict: true,
		Timeout: time.Duration(*seconds) * time.Second, MaxHeaderLen: 4000,
	}
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		group.Test(judge)
		report(group, json.NewEncoder(lines))
	}
}
