// Before anything is shown: the look chosen last, if any.
try {
  document.documentElement.style.colorScheme = localStorage.getItem("look") ?? "";
} catch {
  // a browser that keeps nothing follows the system
}
