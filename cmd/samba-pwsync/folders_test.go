package main

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Files that come and go while a folder is given to its owner are no reason to break off. It takes luck for one to go in the very moment; over
// thousands of tries there is enough of it.
func TestFilesGoMeanwhile(t *testing.T) {
	dir := t.TempDir()
	over := make(chan struct{})
	var churn sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d"} {
		churn.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				path := filepath.Join(dir, name)
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Error(err)
					return
				}
				if err := os.Remove(path); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for began := time.Now(); time.Since(began) < 300*time.Millisecond; {
		if err := giveFiles(folder{path: dir, mode: 0o700, files: 0o640, owner: self()}); err != nil {
			t.Error(err)
			break
		}
	}
	close(over)
	churn.Wait()
}
