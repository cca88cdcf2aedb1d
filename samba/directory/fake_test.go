package directory

import (
	"net"
	"strconv"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// fake is the little of a domain controller's LDAP that these tests need, for
// what a real one cannot be made to do: hang up, fall silent, answer nonsense.
// What a real one answers is the matter of the live tests.
type fake struct {
	ordinary bool                // refuse to answer without a bind, as the ordinary socket does
	password string              // what a bind must present
	answer   func(search) *reply // to searches below the rootDSE; nil hangs up
	highest  func() uint64       // highestCommittedUSN; nil: 4113
}

// search is a search request.
type search struct {
	base, filter string
	attrs        []string
	cookie       string // of the paging control, or of DirSync's
	paged        bool
	deleted      bool // deleted objects are to be shown
}

// reply is the answer to one; a silent one never comes.
type reply struct {
	entries []*ldap.Entry
	code    int
	cookie  string // of the next page
	synced  []byte // cookie of a DirSync answer
	more    int64  // its flags
	silent  bool
}

const (
	fakeBase          = "DC=example,DC=test"
	fakeConfiguration = "CN=Configuration," + fakeBase
	fakeSchema        = "CN=Schema," + fakeConfiguration
	fakeServer        = "CN=DC1,CN=Servers,CN=Site,CN=Sites," + fakeConfiguration
	fakeService       = "CN=NTDS Settings," + fakeServer
	applicationDone   = 5
)

// serve answers on conn until it breaks or is hung up.
func (f *fake) serve(conn net.Conn) {
	defer conn.Close()
	for {
		request, err := ber.ReadPacket(conn)
		if err != nil {
			return
		}
		id := request.Children[0].Value.(int64)
		op := request.Children[1]
		switch op.Tag {
		case ldap.ApplicationBindRequest:
			code := ldap.LDAPResultInvalidCredentials
			if op.Children[2].Data.String() == f.password {
				code = ldap.LDAPResultSuccess
			}
			conn.Write(envelope(id, result(ldap.ApplicationBindResponse, code)).Bytes())
		case ldap.ApplicationSearchRequest:
			r := f.reply(parse(request))
			if r == nil {
				return
			}
			if r.silent {
				continue
			}
			for _, entry := range r.entries {
				conn.Write(envelope(id, encodeEntry(entry)).Bytes())
			}
			done := envelope(id, result(applicationDone, r.code))
			if r.cookie != "" {
				control := ldap.NewControlPaging(0)
				control.SetCookie([]byte(r.cookie))
				addControl(done, control)
			}
			if r.synced != nil {
				addControl(done, ldap.NewRequestControlDirSync(r.more, 0, r.synced))
			}
			conn.Write(done.Bytes())
		default:
			return
		}
	}
}

func (f *fake) reply(s search) *reply {
	switch {
	case s.base == "":
		highest := uint64(4113)
		if f.highest != nil {
			highest = f.highest()
		}
		return &reply{entries: []*ldap.Entry{ldap.NewEntry("", map[string][]string{
			"defaultNamingContext":       {fakeBase},
			"schemaNamingContext":        {fakeSchema},
			"configurationNamingContext": {fakeConfiguration},
			"dnsHostName":                {"dc1.example.test"},
			"serverName":                 {fakeServer},
			"dsServiceName":              {fakeService},
			"highestCommittedUSN":        {strconv.FormatUint(highest, 10)},
			"domainFunctionality":        {"4"},
		})}}
	case f.ordinary:
		return &reply{code: ldap.LDAPResultOperationsError}
	case s.base == fakeBase && len(s.attrs) == 1 && s.attrs[0] == noAttributes:
		return &reply{entries: []*ldap.Entry{ldap.NewEntry(fakeBase, nil)}}
	}
	return f.answer(s)
}

func parse(request *ber.Packet) search {
	op := request.Children[1]
	filter, _ := ldap.DecompileFilter(op.Children[6])
	s := search{base: op.Children[0].Value.(string), filter: filter}
	for _, attr := range op.Children[7].Children {
		s.attrs = append(s.attrs, attr.Value.(string))
	}
	if len(request.Children) > 2 {
		for _, packet := range request.Children[2].Children {
			switch control, _ := ldap.DecodeControl(packet); control := control.(type) {
			case *ldap.ControlPaging:
				s.paged, s.cookie = true, string(control.Cookie)
			case *ldap.ControlDirSync:
				s.cookie = string(control.Cookie)
			case *ldap.ControlMicrosoftShowDeleted:
				s.deleted = true
			}
		}
	}
	return s
}

func envelope(id int64, op *ber.Packet) *ber.Packet {
	p := ber.NewSequence("message")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, "id"))
	p.AppendChild(op)
	return p
}

func addControl(p *ber.Packet, control ldap.Control) {
	controls := ber.Encode(ber.ClassContext, ber.TypeConstructed, 0, nil, "controls")
	controls.AppendChild(control.Encode())
	p.AppendChild(controls)
}

func result(tag ber.Tag, code int) *ber.Packet {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "result")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, int64(code), "code"))
	p.AppendChild(octets(""))
	p.AppendChild(octets(""))
	return p
}

func encodeEntry(entry *ldap.Entry) *ber.Packet {
	attributes := ber.NewSequence("attributes")
	for _, a := range entry.Attributes {
		values := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "values")
		for _, v := range a.Values {
			values.AppendChild(octets(v))
		}
		attribute := ber.NewSequence("attribute")
		attribute.AppendChild(octets(a.Name))
		attribute.AppendChild(values)
		attributes.AppendChild(attribute)
	}
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "entry")
	p.AppendChild(octets(entry.DN))
	p.AppendChild(attributes)
	return p
}

func octets(s string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, "")
}

// dialFake connects to f as over the privileged socket.
func dialFake(t *testing.T, f *fake) *DC {
	t.Helper()
	ours, theirs := net.Pipe()
	go f.serve(theirs)
	dc, err := open(t.Context(), ours, "ldapi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dc.Close() })
	return dc
}
