package engine

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wallClock is the wall clock of this process, which a test may set. The system's is left
// alone, and so is the monotonic one, as when somebody sets the time of a machine.
//
// There is no seam for it in the store: everything asks the kernel's function in the vDSO,
// the runtime and through it every library. That function is replaced by one that shifts
// what the kernel says, for as long as the process lives, so only a child may have one.
type wallClock struct {
	// The function computes seconds*run+shift, and nanoseconds*run.
	run, shift *int64
}

// newWallClock replaces the function. An error says why that cannot be done here.
func newWallClock() (*wallClock, error) {
	entry, err := vdsoSymbol("__vdso_clock_gettime")
	if err != nil {
		return nil, err
	}
	page, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	c := &wallClock{(*int64)(unsafe.Pointer(&page[4096])), (*int64)(unsafe.Pointer(&page[4104]))}
	c.set(1, 0)
	code := []byte{
		0xb8, 0xe4, 0, 0, 0, // mov eax, 228: clock_gettime
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi
		0x75, 0x24, // jnz: not CLOCK_REALTIME
		0x48, 0xb9, // mov rcx, the two numbers
	}
	code = binary.LittleEndian.AppendUint64(code, uint64(uintptr(unsafe.Pointer(&page[4096]))))
	code = append(code,
		0x48, 0x8b, 0x16, // mov rdx, [rsi]
		0x48, 0x0f, 0xaf, 0x11, // imul rdx, [rcx]
		0x48, 0x03, 0x51, 0x08, // add rdx, [rcx+8]
		0x48, 0x89, 0x16, // mov [rsi], rdx
		0x48, 0x8b, 0x56, 0x08, // mov rdx, [rsi+8]
		0x48, 0x0f, 0xaf, 0x11, // imul rdx, [rcx]
		0x48, 0x89, 0x56, 0x08, // mov [rsi+8], rdx
		0xc3, // ret
	)
	copy(page, code)
	if err := unix.Mprotect(page[:4096], unix.PROT_READ|unix.PROT_EXEC); err != nil {
		return nil, err
	}
	jump := binary.LittleEndian.AppendUint64([]byte{0x48, 0xb8}, uint64(uintptr(unsafe.Pointer(&page[0])))) // mov rax
	jump = append(jump, 0xff, 0xe0)                                                                         // jmp rax
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	if _, err := mem.WriteAt(jump, entry); err != nil {
		return nil, fmt.Errorf("the vDSO cannot be written: %w", err)
	}
	return c, c.works()
}

// works tells the two clocks apart once.
func (c *wallClock) works() error {
	began := time.Now()
	c.shiftBy(-time.Hour)
	now := time.Now()
	c.shiftBy(0)
	if shift := now.Round(0).Sub(began.Round(0)); shift > -59*time.Minute || now.Sub(began) < 0 || now.Sub(began) > time.Minute {
		return fmt.Errorf("the clock was put back by an hour: the wall says %v, the monotonic clock %v", shift, now.Sub(began))
	}
	return nil
}

func (c *wallClock) set(run, shift int64) {
	atomic.StoreInt64(c.shift, shift)
	atomic.StoreInt64(c.run, run)
}

// shiftBy makes the wall clock run so far ahead of the system's.
func (c *wallClock) shiftBy(d time.Duration) { c.set(1, int64(d/time.Second)) }

// stop makes it show one second for ever.
func (c *wallClock) stop(at time.Time) { c.set(0, at.Unix()) }

// vdsoSymbol is where a function of the vDSO is in this process.
func vdsoSymbol(name string) (int64, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return 0, err
	}
	var low, high int64
	for line := range bytes.Lines(maps) {
		if bytes.HasSuffix(bytes.TrimSpace(line), []byte("[vdso]")) {
			if _, err := fmt.Sscanf(string(line), "%x-%x", &low, &high); err != nil {
				return 0, err
			}
		}
	}
	if low == 0 {
		return 0, errors.New("no vDSO")
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		return 0, err
	}
	defer mem.Close()
	image := make([]byte, high-low)
	if _, err := mem.ReadAt(image, low); err != nil {
		return 0, err
	}
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, err
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return 0, err
	}
	for _, s := range symbols {
		if s.Name == name {
			return low + int64(s.Value), nil
		}
	}
	return 0, fmt.Errorf("the vDSO has no %s", name)
}
