package checkpassword_test

import (
	"fmt"
	"os"

	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
)

// The whole of a script that applies Samba's rule and a minimum length of 12.
// As nobody sees what it prints, a real one would log to syslog.
func Example() {
	request, err := checkpassword.Read(os.Stdin, os.Getenv)
	if err != nil {
		os.Exit(checkpassword.Fail)
	}
	good := checkpassword.UTF16Len(request.Password) >= 12 && checkpassword.Complex(request.Password)
	clear(request.Password)
	if !good {
		os.Exit(checkpassword.Refuse)
	}
	os.Exit(checkpassword.Accept)
}

func ExampleComplex() {
	for _, password := range []string{"correct horse battery staple", "Tr0ub4dor", "Straße1", "ΑΒΓ123"} {
		fmt.Println(checkpassword.Complex([]byte(password)))
	}
	// Output:
	// false
	// true
	// true
	// false
}
