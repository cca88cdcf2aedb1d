package directory

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func TestControllers(t *testing.T) {
	const sites = ",CN=Servers,CN=Site,CN=Sites," + fakeConfiguration
	settings := func(name string, id string, readOnly string) *ldap.Entry {
		return ldap.NewEntry("CN=NTDS Settings,CN="+name+sites, map[string][]string{"invocationId": {strings.Repeat(id, 16)}, "msDS-isRODC": {readOnly}})
	}
	var asked search
	all := []*ldap.Entry{settings("DC1", "1", "FALSE"), settings("DC2", "2", "TRUE"), settings("GONE", "3", "FALSE")}
	dc := dialFake(t, &fake{answer: func(s search) *reply {
		switch s.base {
		case "CN=Sites," + fakeConfiguration:
			asked = s
			return &reply{entries: all}
		case "CN=DC1" + sites:
			return &reply{entries: []*ldap.Entry{ldap.NewEntry(s.base, map[string][]string{"cn": {"DC1"}, "dNSHostName": {"dc1.example.test"}})}}
		case "CN=DC2" + sites:
			return &reply{entries: []*ldap.Entry{ldap.NewEntry(s.base, map[string][]string{"cn": {"DC2"}})}}
		}
		return &reply{code: ldap.LDAPResultNoSuchObject}
	}})
	id := func(s string) dsdb.GUID { return dsdb.GUID([]byte(strings.Repeat(s, 16))) }
	want := []Controller{
		{Name: "DC1", DNSHostName: "dc1.example.test", InvocationID: id("1"), Writable: true},
		{Name: "DC2", InvocationID: id("2")},
	}
	if got, err := dc.Controllers(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("Controllers = %+v, %v", got, err)
	}
	if want := "(&(objectClass=nTDSDSA)(invocationId=*)(|(hasMasterNCs=" + fakeBase + ")(msDS-hasFullReplicaNCs=" + fakeBase + ")))"; asked.filter != want {
		t.Errorf("asked for %s", asked.filter)
	}
	all = []*ldap.Entry{ldap.NewEntry("CN=NTDS Settings,CN=DC1"+sites, map[string][]string{"invocationId": {"short"}})}
	if got, err := dc.Controllers(t.Context()); err == nil || !strings.Contains(err.Error(), "invocationId") {
		t.Errorf("Controllers = %+v, %v; want an error that names the attribute", got, err)
	}
}

// vector makes a replUpToDateVector of cursors.
func vector(cursors ...dsdb.Cursor) string {
	b := append(make([]byte, 0, 64), 2, 0, 0, 0, 0, 0, 0, 0, byte(len(cursors)), 0, 0, 0, 0, 0, 0, 0)
	for _, c := range cursors {
		b = append(b, c.InvocationID[:]...)
		b = binary.LittleEndian.AppendUint64(b, c.USN)
		b = binary.LittleEndian.AppendUint64(b, uint64(c.LastSync.Unix()+11_644_473_600)*10_000_000)
	}
	return string(b)
}

// Of a partner the time is that of the last pull; of others there is none, whatever their cursor says.
func TestNeighbours(t *testing.T) {
	from, err := os.ReadFile("../dsdb/testdata/repsfrom.bin")
	if err != nil {
		t.Fatal(err)
	}
	partner, err := dsdb.ParseRepsFrom(from)
	if err != nil {
		t.Fatal(err)
	}
	long := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	distant := dsdb.GUID{9}
	attributes := map[string][]string{}
	dc := dialFake(t, &fake{answer: func(s search) *reply { return &reply{entries: []*ldap.Entry{ldap.NewEntry(s.base, attributes)}} }})
	if got, err := dc.Neighbours(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("alone: %+v, %v", got, err)
	}
	attributes["replUpToDateVector"] = []string{vector(dsdb.Cursor{InvocationID: partner.InvocationID, USN: 77, LastSync: long}, dsdb.Cursor{InvocationID: distant, USN: 5, LastSync: long})}
	attributes["repsFrom"] = []string{string(from)}
	want := []Neighbour{{partner.InvocationID, 77, partner.LastSuccess}, {InvocationID: distant, USN: 5}}
	if got, err := dc.Neighbours(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("Neighbours = %+v, %v, want %+v", got, err, want)
	}
	for attribute, value := range map[string]string{"repsFrom": "short", "replUpToDateVector": "short"} {
		sound := attributes[attribute]
		attributes[attribute] = []string{value}
		if got, err := dc.Neighbours(t.Context()); err == nil || !strings.Contains(err.Error(), attribute) {
			t.Errorf("with a damaged %s: %+v, %v", attribute, got, err)
		}
		attributes[attribute] = sound
	}
}

func FuzzDecodeNeighbours(f *testing.F) {
	from, err := os.ReadFile("../dsdb/testdata/repsfrom.bin")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(vector(dsdb.Cursor{InvocationID: dsdb.GUID{1}, USN: 1, LastSync: time.Unix(1, 0)})), from)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, vector, from []byte) {
		got, err := decodeNeighbours(ldap.NewEntry(fakeBase, map[string][]string{"replUpToDateVector": {string(vector)}, "repsFrom": {string(from)}}))
		if err != nil && got != nil {
			t.Errorf("%v, and yet %v", err, got)
		}
	})
}

// A PSO that goes away between two questions must not look like an account that does not exist.
func TestResultantPSO(t *testing.T) {
	const psoDN = "CN=strict,CN=Password Settings Container,CN=System," + fakeBase
	account := ldap.NewEntry("CN=alice", map[string][]string{"msDS-ResultantPSO": {psoDN}})
	pso := &reply{entries: []*ldap.Entry{ldap.NewEntry(psoDN, map[string][]string{
		"cn": {"strict"}, "msDS-PasswordSettingsPrecedence": {"10"}, "msDS-PasswordComplexityEnabled": {"TRUE"},
		"msDS-MinimumPasswordLength": {"12"}, "msDS-PasswordHistoryLength": {"5"},
	})}}
	dc := dialFake(t, &fake{answer: func(s search) *reply {
		if s.base == psoDN {
			return pso
		}
		return &reply{entries: []*ldap.Entry{account}}
	}})
	want := FineGrained{Name: "strict", Precedence: 10, Complexity: true, MinLength: 12, HistoryLength: 5}
	if got, found, err := dc.ResultantPSO(t.Context(), dsdb.GUID{1}); err != nil || !found || got != want {
		t.Errorf("ResultantPSO = %+v, %v, %v", got, found, err)
	}
	pso = &reply{code: ldap.LDAPResultNoSuchObject}
	if got, found, err := dc.ResultantPSO(t.Context(), dsdb.GUID{1}); err == nil || found || errors.Is(err, ErrNotFound) {
		t.Errorf("without its PSO: %+v, %v, %v", got, found, err)
	}
	account = ldap.NewEntry("CN=alice", nil)
	if got, found, err := dc.ResultantPSO(t.Context(), dsdb.GUID{1}); err != nil || found {
		t.Errorf("governed by none: %+v, %v, %v", got, found, err)
	}
}
