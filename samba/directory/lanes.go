package directory

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Samba's LDAP server is a few processes (`prefork children`, 4 by default), and
// each connection is one of them's for good. One that waits to write, because
// another writes, answers nobody meanwhile, not even who only reads. So a
// question that is not answered soon is put to another process as well, and
// whoever answers first is right: all of them read the same database.

// lane is one connection.
type lane struct {
	conn  *ldap.Conn
	stuck atomic.Int32 // questions that it has not answered, nor soon
}

// patience is how long a lane has for an answer before the next is asked, too.
// Samba answers in a millisecond or two if it answers.
const patience = 50 * time.Millisecond

// dialing bounds opening one more lane: a DC that is that slow has nobody to spare.
const dialing = 2 * time.Second

// Widen opens further connections to the same server, until there are as many
// lanes as asked for: from then on a question that is not answered within 50 ms is
// put to the next of them as well. It sees to it that they are of different
// processes of Samba's, as far as that can be had. Questions that take several
// pages stay on the first. Where one of the connections is lost, the next question
// that meets it is ErrUnavailable, as with one.
//
// With an error there are fewer lanes, and the DC is as usable as before. It is to
// be called before the DC is used by others, after a Dial without a Bind.
func (dc *DC) Widen(ctx context.Context, lanes int) error {
	root, err := dc.readOne(ctx, "", anything, "schemaNamingContext")
	if err != nil {
		return fmt.Errorf("opening more connections: %w", err)
	}
	schema := root.GetAttributeValue("schemaNamingContext")
	for len(dc.lanes) < lanes {
		dc.occupy(schema)
		more, err := dc.dialAgain(ctx)
		if err != nil {
			return fmt.Errorf("opening more connections: %w", err)
		}
		dc.lanes = append(dc.lanes, more.lanes...)
	}
	return nil
}

func (dc *DC) dialAgain(ctx context.Context) (*DC, error) {
	ctx, cancel := context.WithTimeout(ctx, dialing)
	defer cancel()
	return dc.again(ctx)
}

// occupy gives the process of each lane some ten milliseconds' work, so that it is
// another one that takes the next connection: the one that is idle does. The schema
// is as large in a small domain as in a large one.
func (dc *DC) occupy(schema string) {
	for _, l := range dc.lanes {
		go func() {
			_, _ = l.conn.Search(&ldap.SearchRequest{ // nobody needs the answer
				BaseDN: schema, Scope: ldap.ScopeSingleLevel, Filter: "(&(cn=*)(!(cn=0)))", Attributes: []string{noAttributes},
			})
		}()
	}
	time.Sleep(time.Millisecond) // so that they are at it
}

// race runs one search on the lane that is likeliest to answer, and on the others
// as long as none does.
func (dc *DC) race(ctx context.Context, request *ldap.SearchRequest) (*ldap.SearchResult, error) {
	type answer struct {
		result *ldap.SearchResult
		err    error
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	lanes := slices.Clone(dc.lanes)
	slices.SortStableFunc(lanes, func(a, b *lane) int { return int(a.stuck.Load()) - int(b.stuck.Load()) })
	answers := make(chan answer, len(lanes))
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for next := 0; ; {
		if next < len(lanes) {
			l := lanes[next]
			next++
			go func() {
				late := time.AfterFunc(patience, func() { l.stuck.Add(1) })
				result, err := l.conn.Search(request)
				if !late.Stop() {
					l.stuck.Add(-1)
				}
				answers <- answer{result, err}
			}()
			timer.Reset(patience)
		}
		select {
		case a := <-answers:
			if a.err != nil {
				return nil, classify(a.err)
			}
			return a.result, nil
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
