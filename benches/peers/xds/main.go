// An xDS server on go-control-plane, as its documentation builds one, for `chancery-bench xds-fleet`.
//
// It serves what Chancery serves: the resources come in a file, per type one encoded DeltaDiscoveryResponse with
// its length before it. `POST /edit?names=a,b&port=…` on the control address changes the port of endpoints, all at once.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
)

var (
	kind      = flag.String("cache", "snapshot", "snapshot or linear")
	resources = flag.String("resources", "", "file with the resources to serve")
	cert      = flag.String("tls-cert", "", "certificate of this server")
	key       = flag.String("tls-key", "", "its key")
	ca        = flag.String("client-ca", "", "who issues certificates of clients")
	xdsAddr   = flag.String("xds-addr", "127.0.0.1:0", "where to serve xDS")
)

// All nodes of a fleet are given the same.
type byCluster struct{}

func (byCluster) ID(node *core.Node) string { return node.GetCluster() }

// What is served, and how endpoints of it are changed: by the names of their clusters.
type catalog interface {
	cache() cache.Cache
	set(assignments map[string]types.Resource) error
}

type snapshots struct {
	inner   cache.SnapshotCache
	byType  map[resource.Type][]types.Resource
	version int
}

func (s *snapshots) cache() cache.Cache { return s.inner }

func (s *snapshots) publish() error {
	s.version++
	snapshot, err := cache.NewSnapshot(strconv.Itoa(s.version), s.byType)
	if err != nil {
		return err
	}
	return s.inner.SetSnapshot(context.Background(), "edge", snapshot)
}

func (s *snapshots) set(assignments map[string]types.Resource) error {
	// Those that are served now are left as they are.
	endpoints := append([]types.Resource(nil), s.byType[resource.EndpointType]...)
	for at, one := range endpoints {
		if assignment, changed := assignments[cache.GetResourceName(one)]; changed {
			endpoints[at] = assignment
		}
	}
	s.byType[resource.EndpointType] = endpoints
	return s.publish()
}

type linears struct {
	mux    *cache.MuxCache
	byType map[string]*cache.LinearCache
}

func (l *linears) cache() cache.Cache { return l.mux }

func (l *linears) set(assignments map[string]types.Resource) error {
	return l.byType[resource.EndpointType].UpdateResources(assignments, nil)
}

func main() {
	flag.Parse()
	byType, err := read(*resources)
	if err != nil {
		log.Fatal(err)
	}
	served, err := build(byType)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *xdsAddr)
	if err != nil {
		log.Fatal(err)
	}
	creds, err := mutual()
	if err != nil {
		log.Fatal(err)
	}
	xds := grpc.NewServer(grpc.Creds(creds), grpc.MaxConcurrentStreams(128), grpc.MaxRecvMsgSize(32<<20))
	discovery.RegisterAggregatedDiscoveryServiceServer(xds, server.NewServer(context.Background(), served.cache(), nil))
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("POST /edit", edits(served, byType[resource.EndpointType]))
	go func() { log.Fatal(http.Serve(control, nil)) }()
	fmt.Printf("{\"event\":\"ready\",\"xds\":%q,\"control\":%q}\n", listener.Addr(), control.Addr())
	log.Fatal(xds.Serve(listener))
}

func edits(served catalog, endpoints []types.Resource) http.HandlerFunc {
	var lock sync.Mutex
	return func(answer http.ResponseWriter, request *http.Request) {
		lock.Lock()
		defer lock.Unlock()
		port, err := strconv.ParseUint(request.FormValue("port"), 10, 16)
		names := strings.Split(request.FormValue("names"), ",")
		assignments := map[string]types.Resource{}
		for _, one := range endpoints {
			if name := cache.GetResourceName(one); slices.Contains(names, name) {
				assignments[name] = moved(one.(*endpoint.ClusterLoadAssignment), uint32(port))
			}
		}
		switch {
		case err != nil:
		case len(assignments) < len(names):
			err = fmt.Errorf("only %d of the endpoints of %q", len(assignments), names)
		default:
			err = served.set(assignments)
		}
		if err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
		}
	}
}

func moved(old *endpoint.ClusterLoadAssignment, port uint32) *endpoint.ClusterLoadAssignment {
	assignment := proto.Clone(old).(*endpoint.ClusterLoadAssignment)
	address := assignment.GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress()
	address.PortSpecifier = &core.SocketAddress_PortValue{PortValue: port}
	return assignment
}

func build(byType map[resource.Type][]types.Resource) (catalog, error) {
	switch *kind {
	case "snapshot":
		served := &snapshots{inner: cache.NewSnapshotCache(true, byCluster{}, nil), byType: byType}
		return served, served.publish()
	case "linear":
		served := &linears{byType: map[string]*cache.LinearCache{}}
		caches := map[string]cache.Cache{}
		for url, all := range byType {
			named := map[string]types.Resource{}
			for _, one := range all {
				named[cache.GetResourceName(one)] = one
			}
			linear := cache.NewLinearCache(url, cache.WithInitialResources(named))
			served.byType[url], caches[url] = linear, linear
		}
		served.mux = &cache.MuxCache{
			Classify:      func(request *cache.Request) string { return request.GetTypeUrl() },
			ClassifyDelta: func(request *cache.DeltaRequest) string { return request.GetTypeUrl() },
			Caches:        caches,
		}
		return served, nil
	default:
		return nil, fmt.Errorf("no such cache: %s", *kind)
	}
}

func read(file string) (map[resource.Type][]types.Resource, error) {
	bytes, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	byType := map[resource.Type][]types.Resource{}
	for len(bytes) > 0 {
		size := binary.BigEndian.Uint32(bytes)
		var response discovery.DeltaDiscoveryResponse
		if err := proto.Unmarshal(bytes[4:4+size], &response); err != nil {
			return nil, err
		}
		bytes = bytes[4+size:]
		for _, one := range response.GetResources() {
			message, err := one.GetResource().UnmarshalNew()
			if err != nil {
				return nil, err
			}
			byType[response.GetTypeUrl()] = append(byType[response.GetTypeUrl()], message)
		}
	}
	if len(byType[resource.ClusterType]) == 0 {
		return nil, fmt.Errorf("%s has no %T", file, &clusterpb.Cluster{})
	}
	return byType, nil
}

func mutual() (credentials.TransportCredentials, error) {
	identity, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(*ca)
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem)
	return credentials.NewTLS(&tls.Config{
		Certificates:           []tls.Certificate{identity},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              trusted,
		SessionTicketsDisabled: true,
	}), nil
}
