/* Preloaded into ranks by launch_fault_test.py: faults that no signal brings by itself. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int control_port;

static void leave(int signal) {
  (void)signal;
  _exit(0);
}

/* Cuts the connections to the supervisor's port. */
static void disconnect(int signal) {
  (void)signal;
  for (int fd = 3; fd < 1024; ++fd) {
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    if (getpeername(fd, (struct sockaddr*)&peer, &length) != 0) continue;
    if (peer.sin_family == AF_INET && ntohs(peer.sin_port) == control_port) shutdown(fd, SHUT_RDWR);
  }
}

__attribute__((constructor)) static void install(void) {
  const char* port = getenv("FAULT_TEST_PORT");
  if (getenv("OMPI_COMM_WORLD_RANK") == NULL) return;
  control_port = port != NULL ? atoi(port) : 0;
  signal(SIGRTMIN + 1, leave);
  signal(SIGRTMIN + 2, disconnect);
}
