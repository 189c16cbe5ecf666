// See privileges.hpp.
#include "sandbox/privileges.hpp"

#include <bulkhead/ipc/system.hpp>

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

namespace bulkhead::sandbox {

privileges::privileges(const policy::values& granted, bool runs_as_root) : learns_(granted.learn) {
  status_.name = name();
  if (granted.without.contains(name())) {
    status_.detail = "left out by the policy";
    return;
  }
  status_.in_force = true;
  status_.detail = "no capabilities, no_new_privs";
  if (!learns_) status_.detail += ", not dumpable";
  if (runs_as_root) status_.detail += "; but the user is root: the host lacks CAP_SETUID to change it";
}

void privileges::apply() {
  if (!status_.in_force) return;
  for (int cap = 0; cap <= 63; ++cap)
    if (::prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0 && errno == EINVAL) break;  // past the kernel's last
  ::prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                 SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                                 SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED);
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2]{};
  checked(::syscall(SYS_capset, &header, none), "capset");
  checked(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)");
  // To learn what a plugin needs, the fork server has to read what its calls name.
  checked(::prctl(PR_SET_DUMPABLE, learns_ ? 1 : 0, 0, 0, 0), "prctl(PR_SET_DUMPABLE)");
}

}  // namespace bulkhead::sandbox
