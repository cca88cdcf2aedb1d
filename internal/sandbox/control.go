package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// The control API is HTTP and JSON over a unix socket that only its owner may
// open. It does what the methods of Sandbox do:
//
//	GET    /state                    State
//	POST   /users                    User
//	DELETE /users/{cloud}/{user}
//	POST   /faults/{cloud}           Fault
//	DELETE /faults
//	POST   /verify                   verification → verdict
//
// An error is a status of 400 and a line of text.

type verification struct {
	Cloud    Cloud         `json:"cloud"`
	User     string        `json:"user"`
	Password string        `json:"password"`
	Wait     time.Duration `json:"wait_ns"`
}

type verdict struct {
	Held bool `json:"held"`
}

// Control serves the control API on a unix socket until ctx ends. It leaves no
// socket behind, and takes the place of one that an earlier run left.
func (sb *Sandbox) Control(ctx context.Context, socket string) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("serving control: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("serving control: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return errors.Join(fmt.Errorf("serving control: %w", err), l.Close())
	}
	server := &http.Server{Handler: sb.controlHandler(), ReadHeaderTimeout: 30 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving control: %w", err)
	}
	return nil
}

func (sb *Sandbox) controlHandler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			result, err := do(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(result)
		})
	}
	handle("GET /state", func(*http.Request) (any, error) { return sb.State(), nil })
	handle("POST /users", func(r *http.Request) (any, error) {
		var u User
		if err := decode(r, &u); err != nil {
			return nil, err
		}
		return nil, sb.AddUser(u)
	})
	handle("DELETE /users/{cloud}/{user}", func(r *http.Request) (any, error) {
		return nil, sb.RemoveUser(Cloud(r.PathValue("cloud")), r.PathValue("user"))
	})
	handle("POST /faults/{cloud}", func(r *http.Request) (any, error) {
		var f Fault
		if err := decode(r, &f); err != nil {
			return nil, err
		}
		return nil, sb.Misbehave(Cloud(r.PathValue("cloud")), f)
	})
	handle("DELETE /faults", func(*http.Request) (any, error) { return nil, sb.Behave() })
	handle("POST /verify", func(r *http.Request) (any, error) {
		var v verification
		if err := decode(r, &v); err != nil {
			return nil, err
		}
		if v.Wait > 0 {
			ctx, cancel := context.WithTimeout(r.Context(), v.Wait)
			defer cancel()
			err := sb.Wait(ctx, func(State) bool { return sb.Verify(v.Cloud, v.User, v.Password) })
			return verdict{err == nil}, nil
		}
		return verdict{sb.Verify(v.Cloud, v.User, v.Password)}, nil
	})
	return mux
}

func decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("reading request: %w", err)
	}
	return nil
}

// A Client asks a sandbox that runs in another process.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient makes a client of the sandbox whose control socket this is.
func NewClient(socket string) *Client {
	return &Client{socket, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}}
}

// AddUser is Sandbox.AddUser.
func (c *Client) AddUser(ctx context.Context, u User) error {
	return c.call(ctx, http.MethodPost, "/users", u, nil)
}

// RemoveUser is Sandbox.RemoveUser.
func (c *Client) RemoveUser(ctx context.Context, cloud Cloud, user string) error {
	return c.call(ctx, http.MethodDelete, "/users/"+string(cloud)+"/"+url.PathEscape(user), nil, nil)
}

// Misbehave is Sandbox.Misbehave.
func (c *Client) Misbehave(ctx context.Context, cloud Cloud, f Fault) error {
	return c.call(ctx, http.MethodPost, "/faults/"+string(cloud), f, nil)
}

// Behave is Sandbox.Behave.
func (c *Client) Behave(ctx context.Context) error {
	return c.call(ctx, http.MethodDelete, "/faults", nil, nil)
}

// Verify is Sandbox.Verify. It waits so long for the answer to become yes.
func (c *Client) Verify(ctx context.Context, cloud Cloud, user, password string, wait time.Duration) (bool, error) {
	var v verdict
	err := c.call(ctx, http.MethodPost, "/verify", verification{cloud, user, password, wait}, &v)
	return v.Held, err
}

// State is Sandbox.State.
func (c *Client) State(ctx context.Context) (State, error) {
	var s State
	err := c.call(ctx, http.MethodGet, "/state", nil, &s)
	return s, err
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("asking the sandbox: %w", err)
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://sandbox"+path, body)
	if err != nil {
		return fmt.Errorf("asking the sandbox: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("asking the sandbox at %s: %w", c.socket, errors.Unwrap(err))
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("asking the sandbox: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(text)))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("asking the sandbox: %w", err)
	}
	return nil
}
