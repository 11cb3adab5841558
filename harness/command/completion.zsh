#compdef %(prog_name)s
%(complete_func)s() {
    setopt localoptions extendedglob
    local response type value
    local -a plain part
    response=$(COMP_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" %(complete_var)s=zsh_complete \
        $words[1])
    local option=${(M)PREFIX#--[^=]#=}
    while IFS=, read -r type value; do
        case $type in
            dir) compset -P '*='; _path_files -/ ;;
            file) compset -P '*='; _path_files ;;
            part) part+=("$option$value") ;;
            plain) plain+=("$option$value") ;;
        esac
    done <<< "$response"
    (( $#part )) && compadd -U -S '' -V part -a part
    (( $#plain )) && compadd -U -V plain -a plain
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
