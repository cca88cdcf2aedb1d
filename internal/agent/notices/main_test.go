package notices

import (
	"os"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/ramdisk"
)

func TestMain(m *testing.M) { os.Exit(ramdisk.Run(m)) }
