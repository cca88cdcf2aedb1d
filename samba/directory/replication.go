package directory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Controller is one of the domain's DCs.
type Controller struct {
	Name         string    // its short name: "DC1"
	DNSHostName  string    // "dc1.example.com"; empty if it has not said
	InvocationID dsdb.GUID // of its database; stamps tell by it where a change was made
	Writable     bool      // false for a read-only DC, which originates no changes
}

// Controllers lists the domain's DCs, this one among them, as the Configuration
// partition has them: by their NTDS Settings ([MS-ADTS] 6.1.1.2.2.1.2.1.1). One
// that was restored has a new InvocationID, and its old one is not listed.
func (dc *DC) Controllers(ctx context.Context) ([]Controller, error) {
	controllers, err := dc.controllers(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing domain controllers: %w", err)
	}
	return controllers, nil
}

func (dc *DC) controllers(ctx context.Context) ([]Controller, error) {
	root, err := dc.readOne(ctx, "", anything, "configurationNamingContext")
	if err != nil {
		return nil, fmt.Errorf("reading rootDSE: %w", err)
	}
	// A forest has other domains, whose DCs hold another one for writing. A DC that is being joined has no database yet.
	base := ldap.EscapeFilter(dc.base)
	settings, err := dc.search(ctx, &ldap.SearchRequest{
		BaseDN: "CN=Sites," + root.GetEqualFoldAttributeValue("configurationNamingContext"), Scope: ldap.ScopeWholeSubtree,
		Filter:     "(&(objectClass=nTDSDSA)(invocationId=*)(|(hasMasterNCs=" + base + ")(msDS-hasFullReplicaNCs=" + base + ")))",
		Attributes: []string{"invocationId", "msDS-isRODC"},
	})
	if err != nil {
		return nil, err
	}
	var controllers []Controller
	for _, entry := range settings.Entries {
		_, parent, _ := strings.Cut(entry.DN, ",") // of "CN=NTDS Settings,CN=DC1,CN=Servers,…"
		server, err := dc.readOne(ctx, parent, anything, "cn", "dNSHostName")
		if errors.Is(err, ErrNotFound) {
			continue // removed just now
		} else if err != nil {
			return nil, err
		}
		d := decoder{entry: entry}
		controllers = append(controllers, Controller{
			Name:         server.GetEqualFoldAttributeValue("cn"),
			DNSHostName:  server.GetEqualFoldAttributeValue("dNSHostName"),
			InvocationID: d.guid("invocationId"),
			Writable:     d.text("msDS-isRODC") != "TRUE",
		})
		if d.err != nil {
			return nil, d.err
		}
	}
	return controllers, nil
}

// Neighbour says how far this DC has heard of another one's changes.
type Neighbour struct {
	InvocationID dsdb.GUID // of the other's database
	USN          uint64    // all that it originated up to this number has arrived here, by whatever way

	// Heard is when this DC last pulled from that one with success, whether
	// anything was new or not: the end of the pull, by this DC's clock, in whole
	// seconds. What the other changed while the pull went on may be missing. Zero
	// if it never has, as where they replicate only by way of others.
	Heard time.Time
}

// Neighbours tells of each DC that this one has ever heard of in the domain's
// naming context, removed ones included and itself excluded, how far it has.
//
// The USN is that of replUpToDateVector. The time is not: Samba fills in 1970
// there (dsdb_load_udv_v2 in util.c; seen with 4.17 and 4.25), and leaves a
// cursor alone until its USN rises. repsFrom has a new time after each pull
// (drepl_reps_update in drepl_out_pull.c), which a silent neighbour gets every
// five minutes by default (drepl_service.c). Both are this DC's own.
func (dc *DC) Neighbours(ctx context.Context) ([]Neighbour, error) {
	neighbours, err := dc.neighbours(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading how replication goes: %w", err)
	}
	return neighbours, nil
}

func (dc *DC) neighbours(ctx context.Context) ([]Neighbour, error) {
	entry, err := dc.readOne(ctx, dc.base, anything, "replUpToDateVector", "repsFrom")
	if err != nil {
		return nil, err
	}
	return decodeNeighbours(entry)
}

func decodeNeighbours(entry *ldap.Entry) ([]Neighbour, error) {
	vector := entry.GetEqualFoldRawAttributeValue("replUpToDateVector")
	if len(vector) == 0 { // it never had a neighbour
		return nil, nil
	}
	cursors, err := dsdb.ParseReplUpToDateVector(vector)
	if err != nil {
		return nil, err
	}
	heard := map[dsdb.GUID]time.Time{}
	for _, value := range entry.GetEqualFoldRawAttributeValues("repsFrom") {
		from, err := dsdb.ParseRepsFrom(value)
		if err != nil {
			return nil, err
		}
		heard[from.InvocationID] = from.LastSuccess
	}
	neighbours := make([]Neighbour, 0, len(cursors))
	for _, c := range cursors {
		neighbours = append(neighbours, Neighbour{InvocationID: c.InvocationID, USN: c.USN, Heard: heard[c.InvocationID]})
	}
	return neighbours, nil
}
