// A ttRPC service on AF_VSOCK and its client in one program, each of which logs its calls.
//
// ttrpc_service PORT: a JSON line for each call that ended at the client, `{"method":
// "lab.Agent/Echo", "code": 0, "message": ""}`, and `{"served": "lab.Agent/Echo"}` for
// each that came to the service.  Calls follow each other, but for the last two, which
// overlap.  Messages are protobuf's well-known wrappers, so that no schema is needed.
package main

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/gogo/protobuf/types"
	"github.com/mdlayher/vsock"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	service  = "lab.Agent"
	loopback = 1
	// Listen alone would take the context id of the machine, which loopback does not reach.
	anyContext = math.MaxUint32
	// More than a client in emulation needs to send its next call.
	slow = 500 * time.Millisecond
)

var (
	output = json.NewEncoder(os.Stdout)
	lock   sync.Mutex
)

func log(line any) {
	lock.Lock()
	defer lock.Unlock()
	check(output.Encode(line))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// method is a Method with a text as its argument, which logs that it was called.
func method(name string, work func(text string) (any, error)) ttrpc.Method {
	return func(_ context.Context, unmarshal func(any) error) (any, error) {
		log(map[string]string{"served": service + "/" + name})
		var request types.StringValue
		if err := unmarshal(&request); err != nil {
			return nil, err
		}
		return work(request.Value)
	}
}

func serve(listener *vsock.Listener) {
	server, err := ttrpc.NewServer()
	check(err)
	methods := map[string]ttrpc.Method{}
	for name, work := range map[string]func(string) (any, error){
		"Echo": func(text string) (any, error) {
			return &types.StringValue{Value: text}, nil
		},
		"Wait": func(string) (any, error) {
			time.Sleep(slow)
			return &types.Empty{}, nil
		},
		"Refuse": func(text string) (any, error) {
			return nil, status.Error(codes.PermissionDenied, "not for "+text)
		},
	} {
		methods[name] = method(name, work)
	}
	server.Register(service, methods)
	check(server.Serve(context.Background(), listener))
}

func call(ctx context.Context, client *ttrpc.Client, service string, name string, text string) {
	var answer types.StringValue
	err := client.Call(ctx, service, name, &types.StringValue{Value: text}, &answer)
	result := status.Convert(err)
	log(map[string]any{
		"method":  service + "/" + name,
		"code":    result.Code(),
		"message": result.Message(),
	})
}

func main() {
	port, err := strconv.ParseUint(os.Args[1], 10, 32)
	check(err)
	listener, err := vsock.ListenContextID(anyContext, uint32(port), nil)
	check(err)
	go serve(listener)
	connection, err := vsock.Dial(loopback, uint32(port), nil)
	check(err)
	client := ttrpc.NewClient(connection)
	ctx := context.Background()
	call(ctx, client, service, "Echo", "hello")
	call(ctx, client, service, "Echo", strings.Repeat("long ", 2000))
	call(ctx, client, service, "Refuse", "you")
	call(ctx, client, service, "Absent", "")
	call(ctx, client, "lab.Nobody", "Echo", "")
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	metadata := ttrpc.MD{}
	metadata.Set("trace", "abc123")
	call(ttrpc.WithMetadata(limited, metadata), client, service, "Echo", "with metadata")
	var both sync.WaitGroup
	both.Add(1)
	go func() {
		defer both.Done()
		call(ctx, client, service, "Wait", "")
	}()
	time.Sleep(slow / 5)
	call(ctx, client, service, "Echo", "meanwhile")
	both.Wait()
	check(client.Close())
}
