//go:build schedule

package yield

import (
	"slices"
	"sync"
)

// Mutex is like a sync.Mutex. Whom that lets in depends on whether somebody waited for
// a millisecond; here the hook decides it: the one who waits longest gets the lock, or
// is woken and may find that another was quicker.
type Mutex struct {
	mu    sync.Mutex // guards the fields below
	held  bool
	queue []chan struct{}
}

// Lock is like that of a sync.Mutex.
func (m *Mutex) Lock() {
	m.mu.Lock()
	for first := false; m.held; first = true {
		c := make(chan struct{})
		if first { // it was the longest waiting, and stays that
			m.queue = slices.Insert(m.queue, 0, c)
		} else {
			m.queue = append(m.queue, c)
		}
		m.mu.Unlock()
		<-c
		m.mu.Lock()
	}
	m.held = true
	m.mu.Unlock()
}

// Unlock is like that of a sync.Mutex.
func (m *Mutex) Unlock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.held {
		panic("yield: unlock of an unlocked mutex")
	}
	m.held = false
	if len(m.queue) > 0 {
		close(m.queue[0])
		m.queue = m.queue[1:]
	}
}

// TryLock is like that of a sync.Mutex.
func (m *Mutex) TryLock() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held {
		return false
	}
	m.held = true
	return true
}
