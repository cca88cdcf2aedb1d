package integration

import (
	"testing"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

// testArrives: after a change over any route both clouds hold exactly the new password, and one can log in to the domain with
// it. newUser tries `samba-tool user create`, for each of them.
func testArrives(t *testing.T) { testArrivesOver(t, company.DC.Routes()) }

func testArrivesOver(t *testing.T, routes []lab.Route) {
	for _, route := range routes {
		t.Run(route.Name, func(t *testing.T) {
			t.Parallel()
			u := newUser(t)
			must(t, company.DC.Login(u.name, u.password()))

			old, password := u.password(), company.NewPassword()
			u.changesBy(t, route, password)
			u.arrives(t, password)
			must(t, company.DC.Login(u.name, password))
			if company.DC.Login(u.name, old) == nil {
				t.Error("one can still log in with the old password")
			}
		})
	}
}
