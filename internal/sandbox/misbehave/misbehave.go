// Package misbehave plays the faults that a sandbox cloud was told to have.
//
// A fault strikes after the request was judged and before the cloud answers
// it, so that even a struck request must be well formed. What a fault does to
// the connection is the same for both clouds and stands here; what it says is
// the vendor's own words and comes from the packages google and microsoft.
package misbehave

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
)

// A Reply is one HTTP answer.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
}

// Write sends it.
func (a Reply) Write(w http.ResponseWriter) {
	for name, values := range a.Header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.Body)))
	w.WriteHeader(a.Status)
	w.Write(a.Body) // a client that has gone is its own problem
}

// The points at which a fault can strike.
const (
	Token = "token" // the token endpoint
	Read  = "read"  // a request of the API that changes nothing
	Write = "write" // one that sets a password
)

// A Kind is one way to misbehave.
type Kind struct {
	Name string
	On   []string // where it strikes unless the fault says otherwise
	Help string
}

var api = []string{Read, Write}

// Common are the kinds that both clouds have. 504-applied and cut-applied set
// the password first: the client cannot know, and must be able to live with it.
var Common = []Kind{
	{"401", api, "the API does not take the token, however fresh"},
	{"404", api, "there is no such user"},
	{"409", api, "another request changes the user at the same time"},
	{"412", api, "a precondition is not met"},
	{"429", api, "too many requests"},
	{"500", api, "internal error"},
	{"502", api, "bad gateway, with a page of HTML"},
	{"503", api, "service unavailable"},
	{"504", api, "gateway timeout, nothing changed"},
	{"504-applied", []string{Write}, "gateway timeout, but the password is set"},
	{"redirect", api, "307 to another host, which records what arrives there"},
	{"slow", append([]string{Token}, api...), "answers after --delay"},
	{"cut", api, "the connection breaks, nothing changed"},
	{"cut-applied", []string{Write}, "the connection breaks, but the password is set"},
	{"echo", api, "400 with a message that holds the whole request body"},
	{"expired-token", api, "the token of this request has expired; a new one is taken"},
	{"short-token", []string{Token}, "the token lives for --delay only (5s unless given)"},
	{"invalid-grant", []string{Token}, "the token endpoint answers invalid_grant"},
	{"invalid-client", []string{Token}, "the token endpoint answers invalid_client"},
}

// Check says what is wrong with an order to misbehave.
func Check(f state.Fault, kinds []Kind) error {
	if f.On != "" && !slices.Contains([]string{Token, Read, Write}, f.On) {
		return fmt.Errorf("no fault strikes on %q: there are token, read and write", f.On)
	}
	if f.Times < 0 || f.RetryAfter < 0 || f.Delay < 0 {
		return fmt.Errorf("fault %s: a number is negative", f.Kind)
	}
	if f.Kind == "slow" && f.Delay == 0 {
		return fmt.Errorf("fault slow needs a delay")
	}
	var names []string
	for _, k := range kinds {
		if k.Name == f.Kind {
			return nil
		}
		names = append(names, k.Name)
	}
	return fmt.Errorf("%s has no fault %q: there are %s", f.Cloud, f.Kind, strings.Join(names, ", "))
}

// Strikes says whether a fault is meant for a request at this point that means
// the user key, or, if known, that user.
func Strikes(f state.Fault, kinds []Kind, cloud state.Cloud, point, key string, user *state.User) bool {
	if f.Cloud != cloud {
		return false
	}
	if f.User != "" && !strings.EqualFold(f.User, key) && (user == nil || !user.Is(f.User)) {
		return false
	}
	if f.On != "" {
		return f.On == point
	}
	for _, k := range kinds {
		if k.Name == f.Kind {
			return slices.Contains(k.On, point)
		}
	}
	return false
}

// Play answers a struck request. apply is what the cloud would have done and
// said, say is what it says instead, in the vendor's words. Trap is the URL of
// the other host.
func Play(w http.ResponseWriter, r *http.Request, f state.Fault, trap string, apply func() Reply, say func(kind string) Reply) {
	if f.Delay > 0 && f.Kind != "short-token" {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done(): // the client has given up: nothing arrived
			panic(http.ErrAbortHandler)
		}
	}
	var answer Reply
	switch f.Kind {
	case "slow":
		answer = apply()
	case "cut":
		panic(http.ErrAbortHandler)
	case "cut-applied":
		apply()
		panic(http.ErrAbortHandler)
	case "504-applied":
		apply()
		answer = say("504")
	case "502":
		answer = Reply{http.StatusBadGateway, http.Header{"Content-Type": {"text/html; charset=UTF-8"}},
			[]byte("<!DOCTYPE html><html lang=en><title>Error 502 (Server Error)</title><p><b>502.</b> That's an error.</html>\n")}
	case "redirect":
		answer = Reply{http.StatusTemporaryRedirect, http.Header{"Location": {trap + r.URL.RequestURI()}}, nil}
	default:
		answer = say(f.Kind)
	}
	if f.RetryAfter > 0 {
		seconds := int((f.RetryAfter + time.Second - 1) / time.Second)
		if answer.Header == nil {
			answer.Header = http.Header{}
		}
		answer.Header.Set("Retry-After", strconv.Itoa(seconds))
	}
	answer.Write(w)
}
