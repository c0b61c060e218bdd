// A client of another make, grpc-go, for tests/serving/go_test.py. It reads one job a line from its
// input and writes one line of JSON for each: what came back, as text and as status code.
//
//	{"method": "tensorflow.serving.PredictionService/Predict", "request": "model_spec { ... }",
//	 "calls": 100, "parallel": 10, "timeout_ms": 1000, "gzip": true, "cancel_after_ms": 5}
//
// Messages are made from the descriptors that the build took out of TensorFlow Serving's own package.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

type job struct {
	Method        string `json:"method"`
	Request       string `json:"request"`
	Calls         int    `json:"calls"`
	Parallel      int    `json:"parallel"`
	TimeoutMs     int    `json:"timeout_ms"`
	CancelAfterMs int    `json:"cancel_after_ms"`
	Gzip          bool   `json:"gzip"`
}

type outcome struct {
	Code     string         `json:"code"` // of the last call
	Message  string         `json:"message"`
	Response string         `json:"response"`
	Codes    map[string]int `json:"codes"` // of all calls
}

func methods(path string) (map[string]protoreflect.MethodDescriptor, *dynamicpb.Types, error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(bytes, set); err != nil {
		return nil, nil, err
	}
	// What protobuf itself brings is in no file of the set.
	known := map[string]bool{}
	for _, file := range set.File {
		known[file.GetName()] = true
	}
	for i := 0; i < len(set.File); i++ {
		for _, name := range set.File[i].Dependency {
			if known[name] {
				continue
			}
			file, err := protoregistry.GlobalFiles.FindFileByPath(name)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", name, err)
			}
			known[name] = true
			set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
		}
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, nil, err
	}
	found := map[string]protoreflect.MethodDescriptor{}
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := 0; i < file.Services().Len(); i++ {
			service := file.Services().Get(i)
			for j := 0; j < service.Methods().Len(); j++ {
				method := service.Methods().Get(j)
				found[fmt.Sprintf("%s/%s", service.FullName(), method.Name())] = method
			}
		}
		return true
	})
	return found, dynamicpb.NewTypes(files), nil
}

func transport(ca, key, certificate string) (credentials.TransportCredentials, error) {
	if ca == "" {
		return insecure.NewCredentials(), nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	config.RootCAs.AppendCertsFromPEM(pem)
	if key != "" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(config), nil
}

func run(connection *grpc.ClientConn, method protoreflect.MethodDescriptor, types *dynamicpb.Types, todo job) (*outcome, error) {
	request := dynamicpb.NewMessage(method.Input())
	if err := (prototext.UnmarshalOptions{Resolver: types}).Unmarshal([]byte(todo.Request), request); err != nil {
		return nil, err
	}
	var options []grpc.CallOption
	if todo.Gzip {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	if todo.Parallel < 1 {
		todo.Parallel = 1
	}
	if todo.Calls < 1 {
		todo.Calls = 1
	}
	if todo.TimeoutMs == 0 {
		todo.TimeoutMs = 20000
	}
	result := &outcome{Codes: map[string]int{}}
	var lock sync.Mutex
	var workers sync.WaitGroup
	turns := make(chan struct{}, todo.Calls)
	for i := 0; i < todo.Calls; i++ {
		turns <- struct{}{}
	}
	close(turns)
	for i := 0; i < todo.Parallel; i++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for range turns {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(todo.TimeoutMs)*time.Millisecond)
				if todo.CancelAfterMs > 0 {
					time.AfterFunc(time.Duration(todo.CancelAfterMs)*time.Millisecond, cancel)
				}
				response := dynamicpb.NewMessage(method.Output())
				err := connection.Invoke(ctx, "/"+todo.Method, request, response, options...)
				cancel()
				text, _ := prototext.MarshalOptions{Resolver: types}.Marshal(response)
				lock.Lock()
				result.Code = status.Code(err).String()
				result.Message = status.Convert(err).Message()
				result.Response = string(text)
				result.Codes[result.Code]++
				lock.Unlock()
			}
		}()
	}
	workers.Wait()
	return result, nil
}

func main() {
	address := flag.String("address", "", "host:port of gRPC")
	descriptors := flag.String("descriptors", "", "FileDescriptorSet")
	ca := flag.String("ca", "", "PEM file of the authority; none = no TLS")
	key := flag.String("key", "", "PEM file of the client's key")
	certificate := flag.String("certificate", "", "PEM file of the client's certificate")
	flag.Parse()
	known, types, err := methods(*descriptors)
	if err != nil {
		log.Fatal(err)
	}
	secure, err := transport(*ca, *key, *certificate)
	if err != nil {
		log.Fatal(err)
	}
	connection, err := grpc.NewClient(*address, grpc.WithTransportCredentials(secure),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)))
	if err != nil {
		log.Fatal(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<30)
	for lines.Scan() {
		var todo job
		if err := json.Unmarshal(lines.Bytes(), &todo); err != nil {
			log.Fatal(err)
		}
		method, ok := known[todo.Method]
		if !ok {
			log.Fatalf("no method %q", todo.Method)
		}
		result, err := run(connection, method, types, todo)
		if err != nil {
			log.Fatal(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
			log.Fatal(err)
		}
	}
}
