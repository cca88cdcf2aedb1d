package policy_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/words"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
)

// All rules at once, with 100,000 banned words; what breached passwords, targets and programs cost is theirs.
func BenchmarkCheck(b *testing.B) {
	rng := rand.New(rand.NewPCG(20, 26))
	var list strings.Builder
	for range 100_000 {
		for range 5 + rng.IntN(6) {
			list.WriteByte("eeeaairnstlodughbmkzfwpvc"[rng.IntN(25)])
		}
		list.WriteByte('\n')
	}
	compiled, _, err := words.Compile([32]byte{}, words.Source{Name: "list", Text: strings.NewReader(list.String())})
	if err != nil {
		b.Fatal(err)
	}
	table, err := words.Read(compiled)
	if err != nil {
		b.Fatal(err)
	}
	settings := policy.Settings{Mode: policy.Enforce, MinLength: 8, MaxLength: 256, Tiers: []string{"8:3", "20:1"}, Names: true, Walks: true,
		Banned: []string{"/words"}, BannedScore: 5, Breached: "/file", Preflight: true}
	tools := policy.Tools{
		Banned:   table,
		Breached: func([]byte) bool { return false },
		Targets:  []policy.Target{{Name: "google", Accepts: func(secret.Secret) []policy.Reason { return nil }}},
	}
	for _, length := range []int{8, 16, 32, 64, 256} {
		password := make([]byte, length)
		for i := range password {
			password[i] = byte('!' + rng.IntN('~'-'!'+1))
		}
		subject := policy.Subject{Password: secret.New(password), Account: "erin.hagens", UserPrincipalName: "erin.hagens@example.com", FullName: "Erin M. Hagens"}
		b.Run(fmt.Sprint(length), func(b *testing.B) {
			for b.Loop() {
				policy.Check(settings, subject, tools)
			}
		})
	}
}
